"""What may be relied on, what with care and what not: one line each, from the record's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from caveat.records.record import Estimate, SetSummary
from caveat.report.picks import Accepted, Picks, miscalibration_shown
from caveat.report.promises import keeps
from caveat.report.shown import Name, Part, Value, between, estimate
from caveat.report.verdict import ECE_FAIR, ECE_GOOD, PASS_FAIR, PASS_GOOD, RANKS_FAIR, RANKS_GOOD

__all__ = ["Caveat", "Level", "caveats"]

Level = Literal["trust", "care", "no"]

CONFIDENT = 0.70  # mean confidence on OOD inputs that deserves a word
FEW = 500  # inputs below which intervals are wide
REFUSED = 2  # an unlabelled set of which this many times more is rejected than promised may be of another kind


@dataclass(frozen=True)
class Caveat:
    """One line of the list of what may be relied on and what may not."""

    level: Level
    text: list[Part]


def caveats(found: Picks) -> list[Caveat]:
    """What may be relied on, what with care, and what not; in that order."""
    lines = [
        *_calibration(found),
        *_mistakes(found),
        *_prediction_sets(found),
        *_ood(found),
        *_unlabelled(found),
        *_evidence(found),
    ]
    order: tuple[Level, ...] = ("trust", "care", "no")
    return sorted(lines, key=lambda line: order.index(line.level))


def _grade(value: Estimate, good: float, fair: float) -> Level:
    # Trust needs the whole interval; a value that is merely fair is enough for care.
    return "trust" if value.highest <= good else "care" if value.value <= fair else "no"


def _calibration(found: Picks) -> list[Caveat]:
    if found.plain is None:
        return []
    error = found.plain.summary.ece
    level = _grade(error, ECE_GOOD, ECE_FAIR)
    advice = {"trust": "may be used as they are", "care": "need care", "no": "must not be used as they are"}
    if level != "trust" and not miscalibration_shown(found.plain.summary):
        text: list[Part] = ["The model's own probabilities: no miscalibration is shown, but "]
        text += ["this many inputs cannot rule it out. ECE ", *estimate(error), "."]
        return [Caveat("care", text)]
    text = [f"The model's own probabilities {advice[level]}: ECE ", *estimate(error), "."]
    lines = [Caveat(level, text)]
    if level != "trust" and (best := found.helping):
        after = best.summary.ece
        text = ["Its probabilities after the calibration ", Name(best.name), ": ECE ", *estimate(after)]
        lines.append(Caveat(_grade(after, ECE_GOOD, ECE_FAIR), [*text, "."]))
    return lines


def _mistakes(found: Picks) -> list[Caveat]:
    if (finder := found.finder) is None:
        return []
    ranks = finder.auroc
    level: Level = "trust" if ranks.lowest >= RANKS_GOOD else "care" if ranks.value >= RANKS_FAIR else "no"
    text: list[Part] = ["Detecting misclassified inputs with ", Name(finder.score), ": AUROC ", *estimate(ranks)]
    return [Caveat(level, [*text, "."])]


def _prediction_sets(found: Picks) -> list[Caveat]:
    return [
        Caveat(
            "no",
            [
                "The prediction sets of ", Name(item.name), " do not hold their guarantee to miss the true class for "
                "at most ", Value(item.error), ": they hold it for ", *estimate(item.coverage),
                ", less than the chance of a calibration split explains.",
            ],
        )
        for item in found.record.conformal
        if not keeps(item)
    ]  # fmt: skip


def _ood(found: Picks) -> list[Caveat]:
    record = found.record
    if not found.ood:
        return [Caveat("no", ["OOD inputs: no OOD set was audited, so nothing is known of them."])]
    by_name = {item.set.name: item for item in found.accepted}
    lines = [_detected(found, by_name[item.name]) for item in found.ood if item.name in by_name]
    if found.leading and record.choice is None and len(record.scores) > 1 and lines:
        text: list[Part] = ["The score ", Name(found.leading), " was picked by looking at these sets: expect a little "]
        lines.append(Caveat("care", [*text, "less on others."]))
    return lines


def _detected(found: Picks, item: Accepted) -> Caveat:
    whole = item.interval or Estimate(value=item.value, low=item.value, high=item.value)
    grade = _grade(whole, PASS_GOOD, PASS_FAIR)
    level: Level = "care" if item.set.generated and grade == "trust" else grade  # nobody may rely on what proves little
    words = {"trust": "detected", "care": "mostly detected", "no": "not detected"}
    easy = " (generated, so easy to detect)" if item.set.generated else ""
    text: list[Part] = ["Inputs like ", Name(item.set.name), f"{easy} are {words[grade]}: ", Value(item.value), " "]
    text += [*between(item.interval), " "] if item.interval else []
    text += ["are accepted with ", Name(found.leading or "")]
    confidence = item.set.mean_confidence
    if confidence is not None and confidence >= CONFIDENT:
        text += [", and the model's mean confidence on them is ", Value(confidence)]
    if item.set.generated and grade == "trust":
        text.append(". This proves little")
    return Caveat(level, [*text, "."])


def _unlabelled(found: Picks) -> list[Caveat]:
    lines = list[Caveat]()
    for item in found.record.sets:
        if item.role != "unlabelled" or item.estimated_accuracy is None:
            continue
        text: list[Part] = ["The accuracy on ", Name(item.name), " is an estimate, ", Value(item.estimated_accuracy)]
        text.append(": nothing checks it, and it holds only if the inputs are in-distribution")
        lines.append(Caveat(*_in_distribution(found, item, text)))
    return lines


def _in_distribution(found: Picks, item: SetSummary, text: Sequence[Part]) -> tuple[Level, list[Part]]:
    """Whether the guard accepts about as much of an unlabelled set as of in-distribution data."""
    record = found.record
    test = next((other.name for other in record.sets if other.role == "test"), "")
    for guard in sorted(record.operating, key=lambda guard: guard.score != found.leading):
        if test in guard.accepted and item.name in guard.accepted:
            share, usual = guard.accepted[item.name], guard.accepted[test]
            if 1 - share <= REFUSED * (1 - guard.keep):
                break
            more: list[Part] = [". They may not be: with ", Name(guard.score), " a guard accepts ", Value(share)]
            return "no", [*text, *more, " of them, but ", Value(usual), " of in-distribution inputs."]
    return "care", [*text, "."]


def _evidence(found: Picks) -> list[Caveat]:
    return [
        Caveat("care", [Name(item.name), " has only ", Value(item.count, "count"), " inputs: the intervals are wide."])
        for item in found.record.sets
        if item.role != "train" and item.count < FEW
    ]
