"""What stands out in a record: the score to lead with, the best in hindsight, the calibration that helps.

`pick` reads a record once; whatever makes a page or a verdict is handed its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from caveat.records.record import (
    Calibration,
    Conformal,
    Detection,
    Estimate,
    Operating,
    Performance,
    Record,
    Selective,
    SetSummary,
    lowest_nll,
)
from caveat.report.promises import keeps
from caveat.report.shown import Kind, estimate, plain_text, shown

__all__ = ["Accepted", "Picks", "best_score", "mean_auroc", "miscalibration_shown", "ood_sets", "pick"]

GAIN = 0.9  # a calibration helps when it leaves at most this part of the error
NOTHING = 0.001  # a calibration error's interval that reaches this low has reached zero
REFERENCE = "temperature"  # the calibration that the others are held against


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """How much of an OOD set is accepted: the one answer to that question on the whole page."""

    set: SetSummary
    value: float
    interval: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Picks:
    """What stands out in a record."""

    record: Record
    plain: Calibration | None
    """The network as it is."""
    ood: tuple[SetSummary, ...]
    """The OOD sets, in the record's order."""
    means: dict[str, float]
    """Per score, the mean AUROC; see `mean_auroc`."""
    best: str | None
    """The best score in hindsight."""
    leading: str | None
    """The score that the report leads with: the chosen one, which rests on in-distribution data; else the best."""
    guard: Operating | None
    """What a guard with the leading score does; its threshold is from the calibration split, which is not judged."""
    accepted: tuple[Accepted, ...]
    """Per OOD set, the share that is accepted with the leading score, the least first."""
    best_finder: Selective | None
    """The score that detects the network's mistakes best, in hindsight."""
    finder: Selective | None
    """How the chosen score detects them; without one, how the best does."""
    helping: Calibration | None
    """Of the calibrations whose ECE is clearly below the network's own, the one with the lowest NLL."""
    same: tuple[Calibration, ...]
    """Calibrations whose figures are those of temperature scaling, to every digit shown."""
    smallest_sets: Conformal | None
    """Of the conformal predictors that keep their promise, the one with the smallest sets on in-distribution data."""

    def detection(self, score: str | None, ood: str) -> Detection | None:
        """The detection of one set by one score, if the record has it."""
        return next((d for d in self.record.detections if (d.score, d.ood) == (score, ood)), None)


def pick(record: Record) -> Picks:
    """Read what stands out, once."""
    scores = {item.name for item in record.scores}
    chosen = record.choice.score if record.choice and record.choice.score in scores else None
    plain = next((item for item in record.calibrations if item.name == "none"), next(iter(record.calibrations), None))
    best_finder = max(record.selective, key=lambda item: item.auroc.value, default=None)
    means, best = mean_auroc(record), best_score(record)
    leading = chosen or best
    guard = next((item for item in record.operating if item.score == leading), None)
    return Picks(
        record=record,
        plain=plain,
        ood=tuple(ood_sets(record)),
        means=means,
        best=best,
        leading=leading,
        guard=guard,
        accepted=tuple(
            sorted(_accepted(record, leading, guard), key=lambda item: (item.value, not item.set.generated))
        ),
        best_finder=best_finder,
        finder=next((item for item in record.selective if item.score == chosen), None) or best_finder,
        helping=_helping(record.calibrations, plain),
        same=tuple(_same(record.calibrations)),
        smallest_sets=_smallest_sets(record),
    )


def ood_sets(record: Record) -> list[SetSummary]:
    """The OOD sets, in the record's order."""
    return [item for item in record.sets if item.role == "ood"]


def mean_auroc(record: Record) -> dict[str, float]:
    """Per score, the mean AUROC over the real OOD sets; over the generated ones only where there are no real ones.

    Only scores with figures on all of those sets are in it: means over different sets cannot be compared. It orders
    the scores and is not shown.
    """
    sets = ood_sets(record)
    judged = {item.name for item in sets if not item.generated} or {item.name for item in sets}
    found: dict[str, list[float]] = {}
    for item in record.detections:
        if item.ood in judged:
            found.setdefault(item.score, []).append(item.auroc.value)
    most = max(map(len, found.values()), default=0)
    return {name: fmean(values) for name, values in found.items() if len(values) == most}


def best_score(record: Record) -> str | None:
    """The score with the highest mean AUROC; without OOD sets, the one that detects the network's mistakes best.

    It is known in hindsight only: by looking at the sets it is judged on.
    """
    if mean := mean_auroc(record):
        return max(mean, key=lambda name: mean[name])
    mistakes = max(record.selective, key=lambda item: item.auroc.value, default=None)
    return mistakes.score if mistakes else (record.scores[0].name if record.scores else None)


def miscalibration_shown(summary: Performance) -> bool:
    """Whether the figures show that confidence and accuracy differ, beyond what chance would make of them.

    They do if the calibration error's interval stays off zero, or the mean confidence lies outside the accuracy's.
    """
    accuracy = summary.accuracy
    return summary.ece.lowest > NOTHING or not accuracy.lowest <= summary.mean_confidence <= accuracy.highest


def _accepted(record: Record, leading: str | None, guard: Operating | None) -> list[Accepted]:
    found: list[Accepted] = []
    for item in ood_sets(record):
        if guard is not None and item.name in guard.accepted:
            found.append(Accepted(set=item, value=guard.accepted[item.name], interval=guard.intervals.get(item.name)))
        elif guard is None and (
            passed := next((d for d in record.detections if (d.score, d.ood) == (leading, item.name)), None)
        ):
            # Without a guard, the best there is: a threshold read off the judged data.
            found.append(Accepted(set=item, value=passed.fpr_at_95_tpr.value, interval=passed.fpr_at_95_tpr))
    return found


def _helping(calibrations: Sequence[Calibration], own: Calibration | None) -> Calibration | None:
    """None, too, where no miscalibration is shown: there is nothing to help."""
    if own is None or not miscalibration_shown(own.summary):
        return None
    return lowest_nll(item for item in calibrations if item.summary.ece.value <= GAIN * own.summary.ece.value)


def _same(calibrations: Sequence[Calibration]) -> list[Calibration]:
    reference = next((item for item in calibrations if item.name == REFERENCE), None)
    if reference is None:
        return []
    others = [item for item in calibrations if item.name not in (REFERENCE, "none")]
    return [item for item in others if _written(item.summary) == _written(reference.summary)]


def _written(found: Performance) -> list[str]:
    """The figures of a calibration's row, as they are shown."""
    estimates: list[tuple[Estimate, Kind]] = [
        (found.accuracy, "percent"),
        (found.nll, "plain"),
        (found.brier, "plain"),
        (found.ece, "percent"),
    ]
    single = [found.ece_equal_mass, found.ece_classwise, found.mce, found.mean_confidence]
    return [
        *(plain_text(estimate(item, kind)) for item, kind in estimates),
        *(shown(x, "percent") for x in single),
    ]


def _smallest_sets(record: Record) -> Conformal | None:
    test = next((item.name for item in record.sets if item.role == "test"), "")
    kept = [item for item in record.conformal if test in item.mean_size and keeps(item)]
    return min(kept, key=lambda item: item.mean_size[test], default=None)
