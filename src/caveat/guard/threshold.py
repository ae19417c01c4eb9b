"""Where the threshold goes: a promise that held-out in-distribution data can hold."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat.calibration import exact_share, keeping_threshold
from caveat.errors import OptionError
from caveat.metrics.interval import highest_share as error_bound
from caveat.metrics.ranking import youden_threshold
from caveat.metrics.tally import tally_sets

__all__ = ["Promise", "check", "error_bound", "keeping", "p_values", "promise", "refusing"]

CONFIDENCE = 0.95
CANDIDATES = 12
"""Thresholds that are tried for `max_error`; each must pass a test at (1 - CONFIDENCE) / CANDIDATES."""
ROUNDING = 2.0**-16
"""What a score may move in single precision with the size of the batch, relative to the scores' usual size."""


@dataclass(frozen=True)
class Promise:
    """A threshold and what it promises."""

    kind: Literal["keep", "max_error", "against"]
    level: float
    """Asked for; of `against`, the share of the pseudo-OOD inputs that is refused, which nobody asked for."""
    threshold: float
    kept: float
    """Share of the reference data that is accepted."""
    error: float
    """Share of wrong answers among these."""
    rounding: float = 0.0
    """How far the score was seen to move by rounding alone."""


def promise(
    scores: Float[Tensor, " m"],
    wrong: Bool[Tensor, " m"],
    *,
    keep: float | None = None,
    max_error: float | None = None,
    against: Float[Tensor, " u"] | None = None,
    rounding: float = 0.0,
) -> Promise:
    """The threshold for a promise; `scores` of in-distribution data that nothing was fitted on, and which answers were
    wrong.

    `keep`: the ceil((m + 1) keep)-th smallest score, so that a fresh in-distribution input is accepted with
    probability at least
    `keep` (split conformal prediction). `max_error`: of thresholds that accept m, 0.8 m, 0.64 m, ... the largest at
    which the exact binomial upper bound on the error among the accepted is at most `max_error`, at 95 % confidence for
    all of them together (Bonferroni). `against`: scores of inputs that stand for OOD ones; the threshold that best
    tells known from pseudo-OOD inputs, both sides counting alike. It promises nothing: how many truly OOD
    inputs are refused depends on how well those stand for them.

    A threshold is itself one of the scores, and the same input scores a last digit more or less with the size of its
    batch. So the threshold lies `ROUNDING` above that score, or twice `rounding` where the score was seen to move that
    far, and everything that is promised is counted with the threshold as it then is: inputs that tie with it are
    accepted, in any batch.

    Raises
    ------
    OptionError
        If not exactly one is given (all missing means keep = 0.95), it is not in (0, 1), it can't be promised, or the
        pseudo-OOD inputs score no higher than in-distribution ones.

    Source: Papadopoulos et al., Inductive Confidence Machines, ECML 2002 (keep); Geifman and El-Yaniv, Selective
    Classification for Deep Neural Networks, NeurIPS 2017 (arXiv 1705.08500), algorithm 1 (max_error).
    """
    check(keep=keep, max_error=max_error, against=against is not None)
    if against is not None:
        return _against(scores, wrong, against, rounding)
    if max_error is not None:
        return _with_error(scores, wrong, max_error, rounding)
    level = 0.95 if keep is None else keep
    threshold = keeping_threshold(scores, level)
    if threshold == float("inf"):
        exact = exact_share("keep", level)
        need = math.ceil(exact / (1 - exact))
        raise OptionError(f"keep: {level} can't be promised from {len(scores)} held-out samples; give at least {need}")
    return _made("keep", level, _above(threshold, scores, rounding), scores, wrong, rounding)


def check(*, keep: float | None, max_error: float | None, against: bool = False) -> None:
    """Refuse options that no data could make a promise of; costs nothing, so it is asked before any work.

    Raises
    ------
    OptionError
        If more than one is given, or a share is not in (0, 1).
    """
    if (keep is not None) + (max_error is not None) + against > 1:
        given = f"keep={keep}, max_error={max_error}" + (" and a set for against" if against else "")
        raise OptionError(f"keep, max_error, against: expected one of them, got {given}")
    for option, share in (("keep", keep), ("max_error", max_error)):
        if share is not None and not 0 < share < 1:
            hint = f"; write {share / 100:g} for {share:g} %" if 1 < share < 100 else ""
            raise OptionError(f"{option}: expected a share in (0, 1), got {share:g}{hint}")


def _above(threshold: float, scores: Tensor, rounding: float) -> float:
    """The threshold and what rounding may add to a score that equals it."""
    return threshold + max(2 * rounding, ROUNDING * max(abs(threshold), float(scores.abs().median())))


def _against(scores: Tensor, wrong: Tensor, ood: Tensor, rounding: float) -> Promise:
    threshold = _above(float(youden_threshold(tally_sets(scores, ood))), scores, rounding)
    refused = float((ood > threshold).double().mean())
    if float((scores <= threshold).double().mean()) + refused <= 1 + 1e-12:
        raise OptionError(
            f"against: the {len(ood)} pseudo-OOD inputs score no higher than in-distribution ones; make others, or "
            "choose another score"
        )
    return _made("against", refused, threshold, scores, wrong, rounding)


def _with_error(scores: Tensor, wrong: Tensor, level: float, rounding: float) -> Promise:
    ordered = scores.sort().values
    best = (1.0, 0)
    for step in range(CANDIDATES):
        size = int(len(scores) * 0.8**step)
        if size < 1:
            break
        threshold = _above(float(ordered[size - 1]), scores, rounding)
        accepted = scores <= threshold
        bound = error_bound(int(wrong[accepted].sum()), int(accepted.sum()), (1 - CONFIDENCE) / CANDIDATES)
        if bound <= level:
            return _made("max_error", level, threshold, scores, wrong, rounding)
        best = min(best, (bound, int(accepted.sum())))
    raise OptionError(
        f"max_error: {level} can't be promised: the best of {CANDIDATES} thresholds accepts {best[1]} of {len(scores)} "
        f"held-out samples with an error of at most {best[0]:.4f} (95 % confidence); allow more, or give more data"
    )


def refusing(scores: Float[Tensor, " u"], share: int | float) -> float:
    """The highest threshold that refuses (score > threshold) at least `share` of these inputs, in float64.

    For a second criterion from pseudo-OOD inputs: with share 1 everything is refused that scores as high as the
    lowest of them, which is the rule of the report on OOD digits and rests on one sample; 0.95 leaves out the
    lowest twentieth.

    Raises
    ------
    OptionError
        If `share` is not in (0, 1], or there are no scores.

    Source: Y. Song, OOD in MNIST (report, Yonsei), section 3.4: "minimum reconstruction loss for OOD".

    >>> scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> [bool(3.0 > refusing(scores, share)) for share in (1, 0.5, 0.25)], bool(1.0 > refusing(scores, 1))
    ([True, True, False], True)
    """
    if not 0 < share <= 1 or not len(scores):
        raise OptionError(f"share: expected one in (0, 1] of some scores, got {share} of {len(scores)}")
    ordered = scores.double().sort(descending=True).values
    last = ordered[math.ceil(share * len(ordered) - 1e-9) - 1]
    return float(torch.nextafter(last, last.new_tensor(-torch.inf)))


def keeping(reference: Float[Tensor, " m"], keep: float, rounding: float = 0.0) -> Promise:
    """The threshold that keeps a share of inputs, where no answer is simply wrong: of numbers, of several labels.

    Raises
    ------
    OptionError
        As `promise`.
    """
    return promise(reference, torch.zeros(len(reference), dtype=torch.bool), keep=keep, rounding=rounding)


def p_values(reference: Float[Tensor, " m"], scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Share of in-distribution inputs, with this one, that score as high or higher: in (0, 1], float64.

    `reference` ascends. Formula: (1 + #{r >= s}) / (1 + m); scores that are NaN count as infinite.

    >>> p_values(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 9.0])).tolist()
    [1.0, 0.75, 0.25]
    """
    above = len(reference) - torch.searchsorted(reference, scores.nan_to_num(torch.inf))
    return (1 + above).double() / (1 + len(reference))


def _made(
    kind: Literal["keep", "max_error", "against"],
    level: float,
    threshold: float,
    scores: Tensor,
    wrong: Tensor,
    rounding: float,
) -> Promise:
    accepted = scores <= threshold
    error = float(wrong[accepted].double().mean()) if accepted.any() else 0.0
    return Promise(kind, level, threshold, float(accepted.double().mean()), error, rounding)
