"""Everything a guard knows beside the network: score, calibration, threshold, and the in-distribution data they rest
on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caveat import calibration as calibrations
from caveat import fitted
from caveat.errors import OptionError, known_name
from caveat.guard.examples import Examples
from caveat.guard.threshold import Promise, promise
from caveat.heads import HeadLayer
from caveat.observations import DRAWS, Observations, apart, squashed
from caveat.sampling import evenly
from caveat.scoring import catalog
from caveat.scoring.choose import choose
from caveat.scoring.kinds import Material, kind_of
from caveat.types import Probe

__all__ = [
    "BASELINE",
    "Decision",
    "as_it_is",
    "baseline",
    "candidates",
    "fit",
    "halved",
    "halves",
    "in_both",
    "mapped",
    "of",
]

BASELINE = "msp"
"""The score of a guard where nothing tells which is best."""

LAST_DIGITS = 2.0**-20
"""Eight units of the last digit of single precision: what sums of a convolution move with the size of a batch."""
SHAKEN = 1000
"""Samples at most on which it is measured how far a score moves by rounding."""
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
    head: str | None
    pooled: bool
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    """Shape of one input; () if it is not known."""
    why: str
    """How the score was chosen."""
    largest: float | None = None
    """Largest absolute value of the inputs it was fitted on; None if that says nothing (whole numbers)."""
    dtype: str = "float32"
    """The precision of autocast when all this was fitted, `float32` without; a guard runs the network in the same."""
    columns: tuple[str, ...] | None = None
    """Names of the inputs, where they are columns of a table."""
    reference_labels: Int[Tensor, " m"] | None = None
    """The true classes of the reference, for a promise for each; None in guards of older versions."""
    examples: Examples | None = None
    """Known inputs to show beside a verdict; None unless they were asked for."""

    def tuned(
        self, *, keep: float | None = None, max_error: float | None = None, each_class: bool = False
    ) -> "Decision":
        """The same with another operating point: nothing is fitted again.

        Raises
        ------
        OptionError
            If not exactly one is given, or the promise can't be held with the in-distribution data there are.
        """
        if each_class and self.reference_labels is None:
            raise OptionError("each_class: this guard was fitted by an older version, which kept no labels; fit again")
        held = promise(
            self.reference, self.reference_wrong, keep=keep, max_error=max_error, rounding=self.promise.rounding,
            labels=self.reference_labels if each_class else None, classes=len(self.classes),
        )  # fmt: skip
        return replace(self, promise=held)


def fit(  # noqa: PLR0913  # the signature is the configuration
    held_out: Observations,
    train: Observations | None,
    head: HeadLayer | None,
    *,
    score: str = "auto",
    calibration: str = "temperature",
    keep: float | None = None,
    max_error: float | None = None,
    probes: Mapping[str, Probe] | None = None,
    classes: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    largest: float | None = None,
    seed: int = 0,
    outliers: Observations | None = None,
    against: Observations | None = None,
    among: Sequence[str] | None = None,
    dtype: str = "float32",
    columns: tuple[str, ...] | None = None,
    each_class: bool = False,
    ood_share: float | None = None,
) -> Decision:
    """Fit score, calibration and threshold from observations of held-out in-distribution data.

    Half of `held_out`, drawn by `seed`, fits the calibration (and the score, without `train`); the threshold and its
    promise rest on the other half, which nothing else has seen: samples of `train` that are in `held_out` too are left
    out, and `why` says so.

    Parameters
    ----------
    score
        A name from the tables, or `auto`: the best by what can be known without OOD data (`scoring.choose`).
    calibration
        A name from the tables, or `none`.
    keep
        Accept a new in-distribution input with at least this probability (default 0.95).
    max_error
        Or: at most this share of wrong answers among the accepted ones, with 95 % confidence.
    probes
        What the observations were probed with, by signal.
    outliers
        Auxiliary OOD inputs, which a meta classifier is fitted on beside the first half of `held_out`.
    against
        Or, instead of a promise: inputs that stand for OOD ones (`guard.pseudo_ood`), from which the threshold best
        tells the in-distribution inputs; see `threshold.promise`.
    each_class
        `keep` is promised for the inputs of every class; the promise names the classes with too few samples.
    ood_share
        `max_error` is promised for every mixture with at most this share of inputs like those of `against`.
    among
        The scores that `auto` chooses among; all that share one pass by default.
    dtype
        The precision in which the network was observed.

    Raises
    ------
    OptionError
        If a name is in no table, or the promise can't be held with this many samples.
    DataError
        If a set is empty or a signal is missing.
    """
    weights = head.weights if head is not None else None
    names = candidates(score, held_out, among, head=weights is not None)
    known_name("calibration", calibration, ["none", *calibrations.FROM_LOGITS])
    first = halves(held_out, seed)[0]
    train, told = apart(train, held_out), in_both(train, held_out)
    name, why = names[0], "named by the user"
    if score == "auto":
        choice = choose(names, train, first, weights)
        name = choice.score if choice else baseline(names)
        why = choice.why if choice else "too few classes to choose by: the baseline"
    why += f"; {told}" if told else ""
    why += f"; {form}" if (form := squashed(held_out.logits)) else ""
    material = Material(train if train is not None else first, weights, first, outliers)
    scored = catalog.fit([name], material, probes)[name]
    probe = (probes or {}).get(catalog.signal(name))
    return of(
        scored, held_out, calibration=calibration, keep=keep, max_error=max_error, each_class=each_class,
        ood_share=ood_share, seed=seed, head=head, probe=probe,
        against=None if against is None else scored(against).double(), classes=classes, shape=shape, why=why,
        largest=largest, dtype=dtype, columns=columns,
    )  # fmt: skip


def in_both(train: Observations | None, held_out: Observations) -> str:
    """In words, how many held-out samples are in the training set too; empty if none is."""
    shared = 0 if train is None else int(held_out.among(train).sum())
    if not shared:
        return ""
    return f"{shared} of {len(held_out)} held-out samples are in train too, and nothing was fitted on them there"


def candidates(score: str, held_out: Observations, among: Sequence[str] | None = None, *, head: bool) -> list[str]:
    """The scores that `score` (a name, or `auto`) may mean, of those that these observations allow.

    Raises
    ------
    OptionError
        If there are none.
    """
    drawn = DRAWS in held_out.probed
    if score != "auto":
        known_name("score", score, catalog.families())
    names = catalog.resolve(among if score == "auto" else [score], draws=drawn)
    if held_out.features is None:
        names = [name for name in names if not kind_of(name).needs_features]
    if not head:
        names = [name for name in names if not kind_of(name).needs_head]
    if not names:
        what = "features" if held_out.features is None else "the weights of the last layer"
        raise OptionError(f"score: {score} needs {what}, and these observations have none")
    return names


def baseline(names: Iterable[str]) -> str:
    """The score where nothing tells which of these is best: `BASELINE`, or the first where that is not among them."""
    names = list(names)
    return BASELINE if BASELINE in names else names[0]


def halves(held_out: Observations, seed: int) -> tuple[Observations, Observations]:
    """What calibration and score may be fitted on, and what the threshold rests on; drawn by `seed`."""
    first, second = halved(len(held_out), seed)
    return held_out.part(first), held_out.part(second)


def halved(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The positions of `halves`."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2], order[count // 2 :]


def of(  # noqa: PLR0913  # the signature is the configuration
    scored: catalog.FittedScore,
    held_out: Observations,
    *,
    calibration: str = "temperature",
    keep: float | None = None,
    max_error: float | None = None,
    against: Tensor | None = None,
    seed: int = 0,
    head: HeadLayer | None = None,
    probe: Probe | None = None,
    classes: tuple[str, ...] = (),
    shape: tuple[int, ...] = (),
    largest: float | None = None,
    why: str = "",
    dtype: str = "float32",
    columns: tuple[str, ...] | None = None,
    each_class: bool = False,
    ood_share: float | None = None,
) -> Decision:
    """The decision with a score that is fitted already, on nothing of `halves(held_out, seed)[1]`; see `fit`.

    A calibration that keeps every answer is fitted on all of `held_out`: the threshold does not depend on it.
    """
    first, second = halves(held_out, seed)
    calibrated = as_it_is
    if calibration != "none":
        data = held_out if calibration in calibrations.KEEP_ORDER else first
        calibrated = calibrations.FROM_LOGITS[calibration](data.logits, data.labels)
    scores = scored(second).double()
    wrong = calibrated(second.logits).argmax(dim=1) != second.labels
    rank = scores.argsort(stable=True)
    rank = rank[evenly(len(rank), REFERENCE)]
    moved = _rounding(scored, second.thinned(SHAKEN), seed)
    labels, count = second.labels[rank], held_out.logits.shape[1]
    held = promise(
        scores[rank], wrong[rank], keep=keep, max_error=max_error, against=against, rounding=moved,
        labels=labels if each_class else None, classes=count, ood_share=ood_share,
    )  # fmt: skip
    return Decision(
        scored, probe, calibration, calibrated, held, scores[rank], wrong[rank], head.name if head else None,
        head.pooled if head else False, classes or tuple(map(str, range(count))), shape, why,
        largest, dtype, columns, labels,
    )  # fmt: skip


def _rounding(scored: catalog.FittedScore, seen: Observations, seed: int) -> float:
    """How far a score moves when all that it looks at moves by a few last digits, as with the size of a batch."""
    generator = torch.Generator().manual_seed(seed)

    def shaken(values: Tensor) -> Tensor:
        return values * (1 + LAST_DIGITS * (2 * torch.rand(values.shape, generator=generator, dtype=values.dtype) - 1))

    other = replace(
        seen, logits=shaken(seen.logits), features=None if seen.features is None else shaken(seen.features),
        probed={name: shaken(found) for name, found in seen.probed.items()},
    )  # fmt: skip
    return float((scored(other).double() - scored(seen).double()).abs().max())


def mapped(made: Decision, function: Callable[[Tensor], Tensor]) -> Decision:
    """The decision with `function` applied to the fitted tensors (to move them); the reference stays in float64."""

    def changed(thing: Any) -> Any:
        return fitted.mapped(thing, function) if is_dataclass(thing) else thing

    kept = made.examples
    return replace(
        made, score=replace(made.score, fitted=changed(made.score.fitted)), calibrated=changed(made.calibrated),
        examples=None if kept is None else replace(kept, features=function(kept.features)),
    )  # fmt: skip


def as_it_is(logits: Tensor) -> Tensor:
    """The calibration `none`."""
    return logits
