"""Where the threshold goes: a promise that held-out in-distribution data can hold."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caveat.calibration import exact_share, keeping_threshold
from caveat.errors import OptionError
from caveat.metrics.interval import highest_share as error_bound
from caveat.metrics.ranking import youden_threshold
from caveat.metrics.tally import tally_sets

__all__ = [
    "Kind",
    "Promise",
    "check",
    "error_bound",
    "keeping",
    "mixed_error",
    "p_values",
    "promise",
    "refused_at_most",
    "refusing",
]

Kind = Literal["keep", "keep_each_class", "max_error", "against"]

CONFIDENCE = 0.95
CANDIDATES = 12
"""Thresholds that are tried for `max_error`; each must pass a test at (1 - CONFIDENCE) / CANDIDATES."""
ROUNDING = 2.0**-16
"""What a score may move in single precision with the size of the batch, relative to the scores' usual size."""


@dataclass(frozen=True)
class Promise:
    """A threshold and what it promises."""

    kind: Kind
    level: float
    """Asked for; of `against`, the share of the pseudo-OOD inputs that is refused, which nobody asked for."""
    threshold: float
    kept: float
    """Share of the reference data that is accepted."""
    error: float
    """Share of wrong answers among these."""
    rounding: float = 0.0
    """How far the score was seen to move by rounding alone."""
    without: tuple[int, ...] = ()
    """Of `keep_each_class`: the classes that it can't be promised for, as they have too few samples."""
    ood_share: float | None = None
    """Of `max_error`: it holds for every mixture with at most this share of OOD inputs; None: for in-distribution
    inputs alone."""
    ood_accepted: float | None = None
    """Upper bound of the share of the OOD inputs that is accepted, which that rests on."""


def promise(  # noqa: PLR0913  # the signature is the configuration
    scores: Float[Tensor, " m"],
    wrong: Bool[Tensor, " m"],
    *,
    keep: float | None = None,
    max_error: float | None = None,
    against: Float[Tensor, " u"] | None = None,
    rounding: float = 0.0,
    labels: Int[Tensor, " m"] | None = None,
    classes: int = 0,
    ood_share: float | None = None,
) -> Promise:
    """The threshold for a promise; `scores` of in-distribution data that nothing was fitted on, and which answers were
    wrong.

    `keep`: the ceil((m + 1) keep)-th smallest score, so that a new in-distribution input is accepted with
    probability at least
    `keep` (split conformal prediction). `max_error`: of thresholds that accept m, 0.8 m, 0.64 m, ... the largest at
    which the exact binomial upper bound on the error among the accepted is at most `max_error`, at 95 % confidence for
    all of them together (Bonferroni). `against`: scores of inputs that stand for OOD ones; the threshold that best
    tells known from pseudo-OOD inputs, both sides counting alike. It promises nothing: how many truly OOD
    inputs are refused depends on how well those stand for them.

    `keep` with `labels`, the true classes, of `classes` classes: the same for the inputs of every class, given that
    class. The threshold is the highest of those of the single classes, so it is one number and no class is refused more
    often; `without` names the classes that have too few samples. `max_error` with `ood_share` q and `against`: of all
    that is accepted, at most `max_error` is wrong, where an accepted OOD input is always wrong, for every mixture of
    in-distribution inputs with at most the share q of inputs *like those of* `against`. Of other OOD inputs nothing is
    promised: nothing is known of how many pass. Without `ood_share`, nothing is promised where OOD inputs come at all.

    A threshold is itself one of the scores, and the same input scores a last digit more or less with the size of its
    batch. So the threshold lies `ROUNDING` above that score, or twice `rounding` where the score was seen to move that
    far, and everything that is promised is counted with the threshold as it then is: inputs that tie with it are
    accepted, in any batch.

    Raises
    ------
    OptionError
        If not exactly one is given (all missing means keep = 0.95), it is not in (0, 1), it can't be promised, or the
        pseudo-OOD inputs score no higher than in-distribution ones; or as `check`.

    Source: Papadopoulos et al., Inductive Confidence Machines, ECML 2002 (keep); Geifman and El-Yaniv, Selective
    Classification for Deep Neural Networks, NeurIPS 2017 (arXiv 1705.08500), algorithm 1 (max_error); Vovk, Conditional
    Validity of Inductive Conformal Predictors, ACML 2012, section 3 (every class); `mixed_error` (mixtures).
    """
    check(
        keep=keep, max_error=max_error, against=against is not None, each_class=labels is not None, ood_share=ood_share
    )
    if max_error is not None:
        return _with_error(scores, wrong, max_error, rounding, against, ood_share)
    if against is not None:
        return _against(scores, wrong, against, rounding)
    level = 0.95 if keep is None else keep
    if labels is not None:
        return _of_each_class(scores, wrong, labels, classes, level, rounding)
    threshold = keeping_threshold(scores, level)
    if threshold == float("inf"):
        raise OptionError(
            f"keep: {level} can't be promised from {len(scores)} held-out samples; give at least {_needed(level)}"
        )
    return _made("keep", level, _above(threshold, scores, rounding), scores, wrong, rounding)


def check(
    *,
    keep: float | None,
    max_error: float | None,
    against: bool = False,
    each_class: bool = False,
    ood_share: float | None = None,
) -> None:
    """Refuse options that no data could make a promise of; costs nothing, so it is asked before any work.

    Raises
    ------
    OptionError
        If more than one is given, a share is not in (0, 1), `each_class` is asked of another promise than `keep`, or
        `ood_share` of another than `max_error` or without OOD inputs, of which alone it can be promised.
    """
    mixed = ood_share is not None
    if (keep is not None) + (max_error is not None) + (against and not mixed) > 1:
        given = f"keep={keep}, max_error={max_error}" + (" and a set for against" if against else "")
        raise OptionError(f"keep, max_error, against: expected one of them, got {given}")
    for option, share in (("keep", keep), ("max_error", max_error), ("ood_share", ood_share)):
        if share is not None and not 0 < share < 1:
            hint = f"; write {share / 100:g} for {share:g} %" if 1 < share < 100 else ""
            raise OptionError(f"{option}: expected a share in (0, 1), got {share:g}{hint}")
    if each_class and (max_error is not None or against):
        raise OptionError("each_class: it belongs to keep, the share accepted; leave out max_error and against")
    if mixed and max_error is None:
        raise OptionError("ood_share: it belongs to max_error, the share of wrong answers; give that too")
    if mixed and not against:
        raise OptionError(
            "ood_share: nothing can be promised of OOD inputs of which none were seen; give held-out ones like those "
            "that may come, as against"
        )


def _needed(level: float) -> int:
    """Samples from which on `keep` can be promised."""
    exact = exact_share("keep", level)
    return math.ceil(exact / (1 - exact))


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


def _of_each_class(
    scores: Tensor, wrong: Tensor, labels: Tensor, classes: int, level: float, rounding: float
) -> Promise:
    # infinite: too few samples. That of all samples is among them, so that `keep` holds for all classes together too
    each = [keeping_threshold(scores[labels == k], level) for k in range(classes)]
    without = tuple(k for k, one in enumerate(each) if one == math.inf)
    if len(without) == classes:
        most = int(labels.bincount(minlength=1).max()) if len(labels) else 0
        raise OptionError(
            f"each_class: keep = {level} can't be promised for any of {classes} classes, as the largest has {most} "
            f"held-out samples for the threshold; at least {_needed(level)} are needed"
        )
    threshold = max(keeping_threshold(scores, level), *(one for one in each if one < math.inf))
    made = _made("keep_each_class", level, _above(threshold, scores, rounding), scores, wrong, rounding)
    return replace(made, without=without)


def _with_error(
    scores: Tensor, wrong: Tensor, level: float, rounding: float, ood: Tensor | None, ood_share: float | None
) -> Promise:
    ordered, best = scores.sort().values, (1.0, 0)
    alpha = (1 - CONFIDENCE) / CANDIDATES / (1 if ood is None else 3)  # of a mixture three shares are bounded
    for step in range(CANDIDATES):
        size = int(len(scores) * 0.8**step)
        if size < 1:
            break
        threshold = _above(float(ordered[size - 1]), scores, rounding)
        accepted = scores <= threshold
        count, passed = int(accepted.sum()), None
        bound = error_bound(int(wrong[accepted].sum()), count, alpha)
        if ood is not None and ood_share is not None:
            passed = error_bound(int((ood <= threshold).sum()), len(ood), alpha)
            bound = mixed_error(bound, 1 - error_bound(len(scores) - count, len(scores), alpha), passed, ood_share)
        if bound <= level:
            made = _made("max_error", level, threshold, scores, wrong, rounding)
            return replace(made, ood_share=ood_share, ood_accepted=passed)
        best = min(best, (bound, count))
    among = "" if ood is None else f", with up to {ood_share:.1%} of inputs like the {len(ood)} OOD ones,"
    raise OptionError(
        f"max_error: {level} can't be promised: the best of {CANDIDATES} thresholds accepts {best[1]} of {len(scores)} "
        f"held-out samples{among} with an error of at most {best[0]:.4f} (95 % confidence); allow more, or give more "
        "data"
    )


def mixed_error(error: float, kept: float, passed: float, share: float) -> float:
    """The share of wrong answers among the accepted of a mixture with this share of OOD inputs, all of them wrong.

    It grows with `error`, that among the accepted in-distribution inputs, with `passed`, the share of the OOD inputs
    that is accepted, and with `share`, and falls with `kept`, the share of the in-distribution inputs that is accepted.
    So with upper bounds of the first two and a lower one of `kept` it is an upper bound, for every mixture with at
    most `share`.

    Formula: ((1 - q) a e + q b) / ((1 - q) a + q b).

    >>> mixed_error(0.0, 1.0, 0.5, 0.5)  # of three accepted one is OOD
    0.3333333333333333
    """
    known, ood = (1 - share) * kept, share * passed
    return (known * error + ood) / (known + ood) if known + ood else 1.0


def refused_at_most(
    reference: Float[Tensor, " m"], thresholds: Float[Tensor, " t"], *, confidence: float = CONFIDENCE
) -> Float[Tensor, " t"]:
    """Upper bounds of the share of in-distribution inputs that score above these thresholds, float64.

    They hold for all thresholds at once with this confidence: a threshold may be moved after a look at the bounds, or
    at any data. (`keep` is a probability over held-out samples too: of one guard in two it is a little less.) The price
    is small: at a share of 5 % seen on 1,000 samples the bound is 7.5 %, for one threshold alone 6.3 %.

    Formula: with j of m reference scores above the threshold, 1 - (δ Π_{l<k} (m - j - l)/(m - l))^{1/k}, where k is
    m/2 and δ = 1 - confidence; 1 if m - j < k.

    Raises
    ------
    OptionError
        If `confidence` is not in (0, 1), or there are no reference scores.

    Source: S. Bates et al., Testing for outliers with conformal p-values, Annals of Statistics 51 (2023), arXiv
    2104.08279 (a uniform bound of the false positive rate by the generalised Simes inequality, k = m/2).

    >>> refused_at_most(torch.arange(1000.0), torch.tensor([949.5, 2000.0])).mul(100).round().tolist()
    [7.0, 1.0]
    """
    if not 0 < confidence < 1 or not len(reference):
        raise OptionError(f"confidence: expected one in (0, 1), of some scores, got {confidence} of {len(reference)}")
    ordered, m = reference.double().sort().values, len(reference)
    k = (m + 1) // 2
    below = torch.searchsorted(ordered, thresholds.double(), right=True)
    # the product is (m - j)! (m - k)! / ((m - j - k)! m!)
    falling = torch.lgamma(below.double() + 1) - torch.lgamma((below - k).clamp_min(0).double() + 1)
    whole = math.lgamma(m + 1) - math.lgamma(m - k + 1)
    bound = 1 - ((falling - whole + math.log1p(-confidence)) / k).exp()
    return torch.where(below < k, 1.0, bound)


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


def _made(kind: Kind, level: float, threshold: float, scores: Tensor, wrong: Tensor, rounding: float) -> Promise:
    accepted = scores <= threshold
    error = float(wrong[accepted].double().mean()) if accepted.any() else 0.0
    return Promise(kind, level, threshold, float(accepted.double().mean()), error, rounding)
