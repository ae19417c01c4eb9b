"""What may be trusted, what with care and what not: one line each, from the record's numbers."""

from dataclasses import dataclass
from typing import Literal

from caveat.records.record import Estimate, Record, SetSummary
from caveat.report import picks
from caveat.report.shown import Name, Part, Value, estimate
from caveat.report.verdict import ECE_FAIR, ECE_GOOD, PASS_FAIR, PASS_GOOD, RANKS_FAIR, RANKS_GOOD

__all__ = ["Caveat", "Level", "caveats"]

Level = Literal["trust", "care", "no"]

SURE = 0.70  # mean confidence on OOD inputs that deserves a word
FEW = 500  # inputs below which intervals are wide
REFUSED = 2  # an unlabelled set of which this many times more is refused than promised may be of another kind


@dataclass(frozen=True)
class Caveat:
    """One line of the list of what may be trusted and what may not."""

    level: Level
    text: list[Part]


def caveats(record: Record) -> list[Caveat]:
    """What may be trusted, what with care, and what not; in that order."""
    lines = [
        *_known(record),
        *_mistakes(record),
        *_sets_of_classes(record),
        *_unknown(record),
        *_unlabelled(record),
        *_evidence(record),
    ]
    order: tuple[Level, ...] = ("trust", "care", "no")
    return sorted(lines, key=lambda line: order.index(line.level))


def _grade(value: Estimate, good: float, fair: float) -> Level:
    # Trust needs the whole interval; a value that is merely fair is enough for care.
    return "trust" if value.high <= good else "care" if value.value <= fair else "no"


def _known(record: Record) -> list[Caveat]:
    plain = picks.plain(record)
    if plain is None:
        return []
    error = plain.summary.ece
    level = _grade(error, ECE_GOOD, ECE_FAIR)
    advice = {
        "trust": "may be read as they are",
        "care": "are to be read with care",
        "no": "must not be read as they are",
    }
    if level != "trust" and not picks.miscalibration_shown(plain.summary):
        text: list[Part] = ["The network's own probabilities: no miscalibration is shown, but "]
        text += ["this many inputs cannot rule it out. Calibration error ", *estimate(error), "."]
        return [Caveat("care", text)]
    text = [f"The network's own probabilities {advice[level]}: calibration error ", *estimate(error), "."]
    lines = [Caveat(level, text)]
    if level != "trust" and (best := picks.helping_calibration(record)):
        after = best.summary.ece
        text = ["Its probabilities after the calibration ", Name(best.name), ": calibration error ", *estimate(after)]
        lines.append(Caveat(_grade(after, ECE_GOOD, ECE_FAIR), [*text, "."]))
    return lines


def _mistakes(record: Record) -> list[Caveat]:
    if (found := picks.finder(record)) is None:
        return []
    ranks = found.auroc
    level: Level = "trust" if ranks.low >= RANKS_GOOD else "care" if ranks.value >= RANKS_FAIR else "no"
    return [Caveat(level, ["Finding its own mistakes with ", Name(found.score), ": AUROC ", *estimate(ranks), "."])]


def _sets_of_classes(record: Record) -> list[Caveat]:
    return [
        Caveat(
            "no",
            [
                "Sets of classes by ", Name(item.name), " do not keep their promise to miss at most ",
                Value(item.error), ": they hold the right class for ", *estimate(item.coverage), ".",
            ],
        )
        for item in record.conformal
        if not picks.keeps(item)
    ]  # fmt: skip


def _unknown(record: Record) -> list[Caveat]:
    score, sets, lines = picks.leading_score(record), picks.unknown_sets(record), list[Caveat]()
    if not sets:
        return [Caveat("no", ["Inputs of other kinds: no OOD set was given, so nothing was tried."])]
    words = {"trust": "recognised", "care": "mostly recognised", "no": "not recognised"}
    for item in sets:
        found = picks.detection(record, score, item.name) if score else None
        if not score or not found:
            continue
        level = _grade(found.fpr_at_95_tpr, PASS_GOOD, PASS_FAIR)
        text: list[Part] = ["Inputs like ", Name(item.name), f" are {words[level]}: "]
        text += [*estimate(found.fpr_at_95_tpr), " pass with ", Name(score)]
        if item.mean_confidence is not None and item.mean_confidence >= SURE:
            text += [", and the network is ", Value(item.mean_confidence), " sure of them on average"]
        if item.generated:
            proof = "passing it proves little" if level == "trust" else "failing it weighs much"
            text.append(f". A generated set is easy: {proof}")
        lines.append(Caveat(level, [*text, "."]))
    if score and record.choice is None and len(record.scores) > 1 and lines:
        text = ["The score ", Name(score), " was picked by looking at these sets: expect a little less on others."]
        lines.append(Caveat("care", text))
    return lines


def _unlabelled(record: Record) -> list[Caveat]:
    lines = list[Caveat]()
    for item in record.sets:
        if item.role != "unlabelled" or item.estimated_accuracy is None:
            continue
        text: list[Part] = ["The accuracy on ", Name(item.name), " is an estimate, ", Value(item.estimated_accuracy)]
        text.append(": nothing checks it, and it holds only if the inputs are of the in-distribution kind")
        lines.append(Caveat(*_answered(record, item, text)))
    return lines


def _answered(record: Record, item: SetSummary, text: list[Part]) -> tuple[Level, list[Part]]:
    """The guard's word on whether an unlabelled set is of the in-distribution kind."""
    known = next((other.name for other in record.sets if other.role == "test"), "")
    score = picks.leading_score(record)
    for guard in sorted(record.operating, key=lambda guard: guard.score != score):
        if known in guard.accepted and item.name in guard.accepted:
            share, usual = guard.accepted[item.name], guard.accepted[known]
            if 1 - share <= REFUSED * (1 - guard.keep):
                break
            text += [". It may not be: with ", Name(guard.score), " a guard answers ", Value(share), " of them, but "]
            return "no", [*text, Value(usual), " of the known."]
    return "care", [*text, "."]


def _evidence(record: Record) -> list[Caveat]:
    return [
        Caveat("care", [Name(item.name), " has only ", Value(item.count, "count"), " inputs: the intervals are wide."])
        for item in record.sets
        if item.role != "train" and item.count < FEW
    ]
