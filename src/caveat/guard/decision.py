"""Everything a guard knows beside the network: score, calibration, threshold, and the in-distribution data they rest
on."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat import calibration as calibrations
from caveat import fitted
from caveat.errors import OptionError, known_name
from caveat.guard.threshold import Promise, promise
from caveat.heads import HeadLayer
from caveat.observations import DRAWS, Observations
from caveat.sampling import evenly
from caveat.scoring import catalog
from caveat.scoring.choose import choose
from caveat.types import Probe

__all__ = ["Decision", "as_it_is", "fit", "mapped"]

REFERENCE = 20_000
"""Known scores kept at most: enough for p-values to 1 in 20,000 and for another operating point."""


@dataclass(frozen=True)
class Decision:
    """How a network's answers are accepted or refused."""

    score: catalog.FittedScore
    probe: Probe | None
    calibration: str
    calibrated: Callable[[Tensor], Tensor]
    promise: Promise
    reference: Float[Tensor, " m"]
    """Ascending scores of in-distribution data that nothing was fitted on."""
    reference_wrong: Bool[Tensor, " m"]
    """Which of these answers were wrong."""
    head: str
    pooled: bool
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    """Shape of one input; () if it is not known."""
    why: str
    """How the score was chosen."""

    def tuned(self, *, keep: float | None = None, max_error: float | None = None) -> "Decision":
        """The same with another operating point: nothing is fitted again.

        Raises
        ------
        OptionError
            If not exactly one is given, or the promise can't be held with the in-distribution data there are.
        """
        return replace(self, promise=promise(self.reference, self.reference_wrong, keep=keep, max_error=max_error))


def fit(  # noqa: PLR0913  # the signature is the configuration
    known: Observations,
    fit: Observations | None,
    head: HeadLayer | None,
    *,
    score: str = "auto",
    calibration: str = "temperature",
    keep: float | None = None,
    max_error: float | None = None,
    probe: Probe | None = None,
    classes: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    seed: int = 0,
    outliers: Observations | None = None,
    against: Observations | None = None,
) -> Decision:
    """Fit score, calibration and threshold from observations of held-out in-distribution data.

    Half of `known`, drawn by `seed`, fits the calibration (and the score, without a `fit` set); the threshold and its
    promise rest on the other half, which nothing else has seen.

    Parameters
    ----------
    score
        A name from the tables, or `auto`: the best by what can be known without OOD data (`audits.choose`).
    calibration
        A name from the tables, or `none`.
    keep
        Accept a fresh in-distribution input with at least this probability (default 0.95).
    max_error
        Or: at most this share of wrong answers among the accepted ones, with 95 % confidence.
    outliers
        Auxiliary OOD inputs, which a meta classifier is fitted on beside the first half of `known`.
    against
        Or, instead of a promise: inputs that stand for OOD ones (`guard.pseudo_unknown`), from which the threshold
        best tells the known; see `threshold.promise`.

    Raises
    ------
    OptionError
        If a name is in no table, or the promise can't be held with this many samples.
    DataError
        If a set is empty or a signal is missing.
    """
    drawn = DRAWS in known.probed
    names = [known_name("score", score, catalog.families())] if score != "auto" else None
    names = catalog.resolve(names, draws=drawn)
    known_name("calibration", calibration, ["none", *calibrations.FROM_LOGITS])
    if known.features is None:
        names = [name for name in names if catalog.families()[name] not in ("features", "head")]
    if not names:
        raise OptionError(f"score: {score} needs features, and these observations have none")
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    first, second = known.part(order[: len(known) // 2]), known.part(order[len(known) // 2 :])
    weights = head.head if head is not None else None
    why = "named by the user"
    if score == "auto":
        choice = choose(names, fit or first, first, weights)
        name = choice.score if choice else "msp"
        why = choice.why if choice else "too few classes to choose by: the baseline"
    else:
        name = names[0]
    probes = {catalog.signal(name): probe} if probe is not None else None
    scored = catalog.fit([name], fit or first, weights, probes, held_out=first, outliers=outliers)[name]
    calibrated = as_it_is
    if calibration != "none":
        calibrated = calibrations.FROM_LOGITS[calibration](first.logits, first.labels)
    scores = scored(second).double()
    wrong = calibrated(second.logits).argmax(dim=1) != second.labels
    rank = scores.argsort(stable=True)
    rank = rank[evenly(len(rank), REFERENCE)]
    foreign = None if against is None else scored(against).double()
    held = promise(scores[rank], wrong[rank], keep=keep, max_error=max_error, against=foreign)
    return Decision(
        scored, probe, calibration, calibrated, held, scores[rank], wrong[rank], head.name if head else "",
        head.pooled if head else False, classes or tuple(map(str, range(known.logits.shape[1]))), shape, why,
    )  # fmt: skip


def mapped(made: Decision, function: Callable[[Tensor], Tensor]) -> Decision:
    """The decision with `function` applied to the fitted tensors (to move them); the reference stays in float64."""

    def changed(thing: Any) -> Any:
        return fitted.mapped(thing, function) if is_dataclass(thing) else thing

    return replace(
        made, score=replace(made.score, fitted=changed(made.score.fitted)), calibrated=changed(made.calibrated)
    )


def as_it_is(logits: Tensor) -> Tensor:
    """The calibration `none`."""
    return logits
