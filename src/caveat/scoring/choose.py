"""Choose a score by what can be known without OOD data, and say what it rests on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally, tally_sets
from caveat.mixture import log_mean
from caveat.observations import DRAWS, Observations
from caveat.records import record
from caveat.sampling import evenly
from caveat.scoring import catalog
from caveat.types import Head

__all__ = ["choose"]

CLASSES = 3
"""How many classes are left out in turn."""
FIT, JUDGE = 4000, 2000
"""Samples at most to fit and to judge each candidate on: enough to rank them."""
FEW = 10
"""With fewer wrong answers their ranking says too little."""


def choose(names: Sequence[str], fit: Observations, tuning: Observations, head: Head | None) -> record.Choice | None:
    """Rank the scores that share one pass on in-distribution data alone; `tuning` must not be judged on afterwards.

    Two questions stand in for the one that cannot be asked: does the score find the network's own mistakes (AUROC wrong
    against right), and does it find a known class that it is kept ignorant of (AUROC of that class against the rest,
    its logit and its training samples taken away; mean over some classes). The figure of merit is their mean, or the
    second alone where too few answers are wrong. The network has seen the class it is made to forget, so the figures
    are optimistic; they serve to compare. None if there is nothing to choose from.
    """
    candidates = [name for name in names if catalog.families()[name] in ("logits", "draws", "features", "head")]
    fit, tuning = fit.thinned(FIT), tuning.thinned(JUDGE)
    classes = tuning.labels.unique()
    if not candidates or len(classes) < 3 or tuning.logits.shape[1] < 3:
        return None
    left_out = classes[evenly(len(classes), CLASSES)].tolist()
    forgotten: dict[str, list[float]] = {name: [] for name in candidates}
    for label in left_out:
        fitted = catalog.fit(candidates, _without(fit, label, rows=True), _head_without(head, label))
        ignorant = _without(tuning, label, rows=False)
        foreign = tuning.labels == label
        for name, score in fitted.items():
            values = score(ignorant)
            forgotten[name].append(float(auroc(tally_sets(values[~foreign], values[foreign]))))
    wrong = tuning.logits.argmax(dim=1) != tuning.labels
    enough = FEW <= int(wrong.sum()) < len(wrong)
    own = {
        name: float(auroc(tally(score(tuning), wrong))) if enough else None
        for name, score in catalog.fit(candidates, fit, head).items()
    }
    figures = {name: _mean([*([own[name]] if enough else []), _mean(forgotten[name])]) for name in candidates}
    best = max(figures, key=lambda name: figures[name])
    why = (
        f"On in-distribution data alone, {best} is best: it finds a class it is kept ignorant of with AUROC "
        f"{_mean(forgotten[best]):.3f} (mean over {len(left_out)} classes left out in turn)"
        + (f" and the network's own mistakes with AUROC {own[best]:.3f}." if enough else ".")
        + (
            ""
            if enough
            else f" Only {int(wrong.sum())} answers of the calibration split are wrong, too few to rank them."
        )
    )
    return record.Choice(score=best, why=why, figures=figures)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _without(observed: Observations, label: int, *, rows: bool) -> Observations:
    """The observations as if the network had no class `label`; with `rows` its samples are taken away too."""
    if rows:
        observed = observed.part((observed.labels != label).nonzero().flatten())
    columns = [k for k in range(observed.logits.shape[1]) if k != label]
    labels = torch.where(observed.labels > label, observed.labels - 1, observed.labels)
    probed = {DRAWS: observed.probed[DRAWS][:, :, columns]} if DRAWS in observed.probed else {}
    logits = log_mean(probed[DRAWS].transpose(0, 1)) if probed else observed.logits[:, columns]
    # a sample of the class itself keeps some label: none of the scores that are applied looks at it
    return Observations(logits, labels.clamp_max(len(columns) - 1), observed.features, probed)


def _head_without(head: Head | None, label: int) -> tuple[Tensor, Tensor] | None:
    if head is None:
        return None
    rows = [k for k in range(len(head[1])) if k != label]
    return head[0][rows], head[1][rows]
