"""What stands out in a record: the score to lead with, the best in hindsight, the calibration that helps."""

from statistics import fmean

from caveat.records.record import Calibration, Conformal, Detection, Performance, Record, Selective, SetSummary

__all__ = [
    "best_finder",
    "best_score",
    "detection",
    "finder",
    "helping_calibration",
    "keeps",
    "leading_score",
    "mean_auroc",
    "miscalibration_shown",
    "plain",
    "smallest_sets",
    "unknown_sets",
]

GAIN = 0.9  # a calibration helps when it leaves at most this part of the error
NOTHING = 0.001  # a calibration error's interval that reaches this low has reached zero


def unknown_sets(record: Record) -> list[SetSummary]:
    """The OOD sets, in the record's order."""
    return [item for item in record.sets if item.role == "ood"]


def detection(record: Record, score: str, ood: str) -> Detection | None:
    """The detection of one set by one score, if the record has it."""
    return next((d for d in record.detections if (d.score, d.ood) == (score, ood)), None)


def mean_auroc(record: Record) -> dict[str, float]:
    """Per score, the mean AUROC over the OOD sets; the generated ones count as one set, however many they are.

    It orders the scores and is not shown.
    """
    easy = {item.name for item in unknown_sets(record) if item.generated}
    found: dict[str, tuple[list[float], list[float]]] = {}
    for item in record.detections:
        found.setdefault(item.score, ([], []))[item.ood in easy].append(item.auroc.value)
    return {name: fmean([*real, fmean(made)] if made else real) for name, (real, made) in found.items()}


def best_score(record: Record) -> str | None:
    """The score with the highest mean AUROC; without OOD sets, the one that finds the network's mistakes best.

    It is known in hindsight only: by looking at the sets it is judged on.
    """
    if mean := mean_auroc(record):
        return max(mean, key=lambda name: mean[name])
    mistakes = best_finder(record)
    return mistakes.score if mistakes else (record.scores[0].name if record.scores else None)


def leading_score(record: Record) -> str | None:
    """The score that the report leads with: the chosen one, which rests on in-distribution data; without one, the
    best."""
    chosen = record.choice.score if record.choice else None
    return chosen if chosen in {item.name for item in record.scores} else best_score(record)


def best_finder(record: Record) -> Selective | None:
    """The score that finds the network's mistakes best, in hindsight."""
    return max(record.selective, key=lambda item: item.auroc.value, default=None)


def finder(record: Record) -> Selective | None:
    """How the chosen score finds the network's mistakes; without one, how the best does."""
    chosen = record.choice.score if record.choice else None
    return next((item for item in record.selective if item.score == chosen), None) or best_finder(record)


def plain(record: Record) -> Calibration | None:
    """The network as it is."""
    return next((item for item in record.calibrations if item.name == "none"), next(iter(record.calibrations), None))


def miscalibration_shown(summary: Performance) -> bool:
    """Whether the figures show that the network is wrongly sure of itself, beyond what chance would.

    They do if the calibration error's interval stays off zero, or the mean confidence lies outside the accuracy's.
    """
    accuracy = summary.accuracy
    return summary.ece.low > NOTHING or not accuracy.low <= summary.mean_confidence <= accuracy.high


def helping_calibration(record: Record) -> Calibration | None:
    """The calibration with the smallest calibration error, if that is clearly below the network's own.

    None, too, where no miscalibration is shown: there is nothing to help.
    """
    own = plain(record)
    if own is None or not miscalibration_shown(own.summary):
        return None
    best = min([own, *record.calibrations], key=lambda item: item.summary.ece.value)
    return best if best is not own and best.summary.ece.value <= GAIN * own.summary.ece.value else None


def smallest_sets(record: Record) -> Conformal | None:
    """Of the conformal predictions that keep their promise, the one with the fewest classes on in-distribution
    inputs."""
    known = next((item.name for item in record.sets if item.role == "test"), "")
    kept = [item for item in record.conformal if known in item.mean_size and keeps(item)]
    return min(kept, key=lambda item: item.mean_size[known], default=None)


def keeps(item: Conformal) -> bool:
    """Whether the promised coverage lies within, or below, what was measured."""
    return item.coverage.high >= 1 - item.error
