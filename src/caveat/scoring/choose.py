"""Choose a score by what can be known without OOD data, and say what it rests on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally, tally_sets
from caveat.mixture import log_mean
from caveat.observations import DRAWS, Observations, apart
from caveat.records import record
from caveat.sampling import evenly
from caveat.scoring import catalog
from caveat.scoring.kinds import Material, kind_of
from caveat.types import Head

__all__ = ["choose"]

CLASSES, FOREIGN = (3, 10), 600
"""Classes that are left out in turn, at least and at most: as many as hold so many of the samples judged on."""
FEW = 10
"""Mistakes below which an AUROC of them says little."""
FIT, JUDGE = 4000, 2000
"""Samples at most to fit and to judge each candidate on: enough to rank them."""


def choose(
    names: Sequence[str], train: Observations | None, held_out: Observations, head: Head | None
) -> record.Choice | None:
    """Rank the scores that share one pass on in-distribution data alone; `held_out` must not be judged on afterwards.

    Two questions stand in for the one that cannot be asked: does the score find the network's own mistakes (AUROC wrong
    against right), and does it find a class that it is kept ignorant of (AUROC of that class against the rest, its
    logit and its training samples taken away; mean over some classes). The figure of merit is their mean, in which a
    wrong answer weighs as much as a sample of a class left out: (f + e w) / (1 + e) with the share e of wrong answers.
    So a few of them decide little, and a larger sample of the same data ranks by the same measure as a smaller one. The
    network has seen the class it is made to forget, so the figures are optimistic; they serve to compare.

    No score is judged on samples it was fitted on: those of `train` that are in `held_out` too are left out; without
    `train`, `held_out` is cut in two halves, and each serves once to fit and once to judge. None if there is nothing to
    choose from.
    """
    train = apart(train, held_out)
    candidates = [name for name in names if kind_of(name).one_pass]
    pairs = [(train, held_out)] if train is not None else _halves(held_out)
    classes = held_out.labels.unique()
    if not candidates or len(classes) < 3 or held_out.logits.shape[1] < 3 or any(not len(fit) for fit, _ in pairs):
        return None
    size = sum(min(len(judged), JUDGE) for _, judged in pairs)
    left_out = classes[evenly(len(classes), min(max(CLASSES[0], len(classes) * FOREIGN // size), CLASSES[1]))].tolist()
    forgotten: dict[str, list[float]] = {}
    own: dict[str, list[float]] = {}
    for fit, judged in pairs:
        fit, judged = fit.thinned(FIT), judged.thinned(JUDGE)
        for label in left_out:
            found = _forgetting(candidates, fit, judged, head, label)
            for name, value in found.items():
                forgotten.setdefault(name, []).append(value)
        wrong = judged.logits.argmax(dim=1) != judged.labels
        if wrong.any() and not wrong.all():
            for name, score in catalog.fit(candidates, Material(fit, head, fit), left_out={}).items():
                own.setdefault(name, []).append(float(auroc(tally(score(judged), wrong))))
    mistakes = int((held_out.logits.argmax(dim=1) != held_out.labels).sum())
    share = mistakes / len(held_out)
    figures = {
        name: (_mean(values) + share * _mean(own[name])) / (1 + share) if name in own else _mean(values)
        for name, values in forgotten.items()
    }
    if not figures:
        return None
    best = max(figures, key=lambda name: figures[name])
    why = (
        f"On in-distribution data alone, {best} is best: it detects a left-out class with AUROC "
        f"{_mean(forgotten[best]):.3f} (mean over {len(left_out)} classes, each left out in turn)"
        + (f" and the network's own mistakes with AUROC {_mean(own[best]):.3f}" if best in own else "")
        + f", on {len(held_out)} held-out samples, of which {share:.1%} are misclassified."
        + (f" An AUROC of so few mistakes ({mistakes}) says little." if best in own and mistakes < FEW else "")
    )
    return record.Choice(score=best, why=why, figures=figures)


def _halves(observed: Observations) -> list[tuple[Observations, Observations]]:
    """The samples in turn, so that both halves have their share of every stretch of the set."""
    rows = torch.arange(len(observed))
    first, second = observed.part(rows[::2]), observed.part(rows[1::2])
    return [(first, second), (second, first)]


def _forgetting(
    names: Sequence[str], fit: Observations, judged: Observations, head: Head | None, label: int
) -> dict[str, float]:
    """AUROC of each score that knows nothing of the class `label` in detecting it."""
    foreign = judged.labels == label
    if not foreign.any() or foreign.all():
        return {}
    remaining = _without(fit, label, rows=True)
    fitted = catalog.fit(names, Material(remaining, _head_without(head, label), remaining), left_out={})
    ignorant = _without(judged, label, rows=False)
    values = {name: score(ignorant) for name, score in fitted.items()}
    return {name: float(auroc(tally_sets(found[~foreign], found[foreign]))) for name, found in values.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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
