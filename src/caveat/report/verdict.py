"""The verdict in plain words, composed from the record's numbers."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from caveat.audits.record import Calibration, Detection, Estimate, Record, Selective, SetSummary
from caveat.report.shown import THIN, Name, Part, Value, estimate

__all__ = [
    "Caveat",
    "Level",
    "best_score",
    "caveats",
    "detection",
    "headline",
    "helping_calibration",
    "is_generated",
    "mean_auroc",
    "unknown_sets",
]

Level = Literal["trust", "care", "no"]

# Where a number becomes a word. All are shares.
ECE_GOOD, ECE_FAIR = 0.01, 0.03
ONE_SIDED = 0.5  # |confidence - accuracy| above this part of the ECE: the error points one way
PASS_GOOD, PASS_FAIR = 0.05, 0.20  # unknowns let through while 95 % of the known are kept
RANKS_GOOD, RANKS_FAIR = 0.90, 0.80  # AUROC of wrong against right answers
SURE = 0.70  # mean confidence on unknowns that deserves a word
FEW = 500  # inputs below which intervals are wide
GAIN = 0.9  # a calibration helps when it leaves at most this part of the error
GENERATED = ("generated", "noise", "permuted", "blobs")


@dataclass(frozen=True)
class Caveat:
    """One line of the list of what may be trusted and what may not."""

    level: Level
    text: list[Part]


def is_generated(item: SetSummary) -> bool:
    """Whether a set was made by a formula (noise and the like), by its source."""
    return item.source.lower().startswith(GENERATED)


def unknown_sets(record: Record) -> list[SetSummary]:
    """The unknown sets, in the record's order."""
    return [item for item in record.sets if item.role == "unknown"]


def detection(record: Record, score: str, unknown: str) -> Detection | None:
    """The detection of one set by one score, if the record has it."""
    return next((d for d in record.detections if (d.score, d.unknown) == (score, unknown)), None)


def mean_auroc(record: Record) -> dict[str, float]:
    """Per score, the mean AUROC over the unknown sets; the generated ones count as one set, however many they are.

    It orders the scores and is not shown.
    """
    easy = {item.name for item in unknown_sets(record) if is_generated(item)}
    found: dict[str, tuple[list[float], list[float]]] = {}
    for item in record.detections:
        found.setdefault(item.score, ([], []))[item.unknown in easy].append(item.auroc.value)
    return {name: fmean([*real, fmean(made)] if made else real) for name, (real, made) in found.items()}


def best_score(record: Record) -> str | None:
    """The score with the highest mean AUROC; without unknown sets, the one that finds the network's mistakes best."""
    if mean := mean_auroc(record):
        return max(mean, key=lambda name: mean[name])
    mistakes = _best_of_mistakes(record)
    return mistakes.score if mistakes else (record.scores[0].name if record.scores else None)


def _best_of_mistakes(record: Record) -> Selective | None:
    return max(record.selective, key=lambda item: item.auroc.value, default=None)


def headline(record: Record) -> list[list[Part]]:
    """The verdict: a few sentences, each a list of words and numbers."""
    return [*_about_known(record), *_about_unknown(record), *_about_mistakes(record)]


def _about_known(record: Record) -> list[list[Part]]:
    if not record.calibrations:
        return []
    plain, _ = _plain_and_best(record)
    known = plain.summary
    sentences: list[list[Part]] = [
        ["Right on ", *estimate(known.accuracy), " of known inputs."],
        [
            _calibration_word(plain).capitalize(),
            ": it says ",
            Value(known.mean_confidence),
            " on average, with a calibration error of ",
            Value(known.ece.value),
            ".",
        ],
    ]
    if best := helping_calibration(record):
        after = Value(best.summary.ece.value)
        sentences.append(["The calibration ", Name(best.name), " brings that error down to ", after, "."])
    elif len(record.calibrations) > 1:
        sentences.append(["No calibration that was tried lowers that error much."])
    return sentences


def helping_calibration(record: Record) -> Calibration | None:
    """The calibration with the smallest calibration error, if that is clearly below the network's own."""
    if not record.calibrations:
        return None
    plain, best = _plain_and_best(record)
    return best if best is not plain and best.summary.ece.value <= GAIN * plain.summary.ece.value else None


def _plain_and_best(record: Record) -> tuple[Calibration, Calibration]:
    plain = next((item for item in record.calibrations if item.name == "none"), record.calibrations[0])
    return plain, min([plain, *record.calibrations], key=lambda item: item.summary.ece.value)


def _calibration_word(item: Calibration) -> str:
    error, gap = item.summary.ece.value, item.summary.mean_confidence - item.summary.accuracy.value
    if error <= ECE_GOOD:
        return "well calibrated"
    if abs(gap) < ONE_SIDED * error:
        return "miscalibrated, in both directions"
    direction = "over-confident" if gap > 0 else "under-confident"
    return direction if error > ECE_FAIR else f"slightly {direction}"


def _about_unknown(record: Record) -> list[list[Part]]:
    score, sets = best_score(record), unknown_sets(record)
    if score is None or not sets:
        return [["No unknown set was given, so nothing can be said about inputs of other kinds."]]
    found = [(item, detection(record, score, item.name)) for item in sets]
    real = [(item.name, d.fpr_at_95_tpr.value) for item, d in found if d and not is_generated(item)]
    easy = [(item.name, d.fpr_at_95_tpr.value) for item, d in found if d and is_generated(item)]
    ranked = sorted(real or easy, key=lambda pair: pair[1])
    if not ranked:
        return []
    kind = "best score" if len(record.scores) > 1 else "score"
    text: list[Part] = [f"The {kind}, ", Name(score), f", keeps 95{THIN}% of known inputs and lets through "]
    (low_name, low), (high_name, high) = ranked[0], ranked[-1]
    text += [Value(low), " of ", Name(low_name)]
    if len(ranked) > 1:
        text += [" but " if high > PASS_FAIR >= low else " to ", Value(high), " of ", Name(high_name)]
    text.append(": do not rely on it there." if high > PASS_FAIR else ".")
    if not real:
        return [text, ["All the unknown sets are generated, which is easy: this proves little."]]
    name, worst = max(easy, key=lambda pair: pair[1], default=("", 0.0))
    if worst > PASS_FAIR:
        return [text, ["It even lets through ", Value(worst), " of ", Name(name), ", a generated set, which is easy."]]
    return [text]


def _about_mistakes(record: Record) -> list[list[Part]]:
    best = _best_of_mistakes(record)
    if best is None:
        return []
    return [
        [
            "Of its own mistakes it has ",
            "a good" if best.auroc.value >= RANKS_GOOD else "some" if best.auroc.value >= RANKS_FAIR else "little",
            " notion: by ",
            Name(best.score),
            ", a wrong answer is trusted less than a right one in ",
            Value(best.auroc.value),
            " of pairs.",
        ]
    ]


def caveats(record: Record) -> list[Caveat]:
    """What may be trusted, what with care, and what not; in that order."""
    lines = [*_caveats_known(record), *_caveats_unknown(record), *_caveats_evidence(record)]
    order: tuple[Level, ...] = ("trust", "care", "no")
    return sorted(lines, key=lambda line: order.index(line.level))


def _grade(value: Estimate, good: float, fair: float) -> Level:
    # Trust needs the whole interval; a value that is merely fair is enough for care.
    return "trust" if value.high <= good else "care" if value.value <= fair else "no"


def _caveats_known(record: Record) -> list[Caveat]:
    lines: list[Caveat] = []
    if record.calibrations:
        plain, _ = _plain_and_best(record)
        level = _grade(plain.summary.ece, ECE_GOOD, ECE_FAIR)
        advice = {
            "trust": "may be read as they are",
            "care": "are to be read with care",
            "no": "must not be read as they are",
        }
        text: list[Part] = [f"The network's own probabilities {advice[level]}: calibration error "]
        lines.append(Caveat(level, [*text, *estimate(plain.summary.ece), "."]))
        if level != "trust" and (best := helping_calibration(record)):
            level = _grade(best.summary.ece, ECE_GOOD, ECE_FAIR)
            text = ["Its probabilities after the calibration ", Name(best.name), ": calibration error "]
            lines.append(Caveat(level, [*text, *estimate(best.summary.ece), "."]))
    if mistakes := _best_of_mistakes(record):
        ranks = mistakes.auroc
        level = "trust" if ranks.low >= RANKS_GOOD else "care" if ranks.value >= RANKS_FAIR else "no"
        text = ["Finding its own mistakes with ", Name(mistakes.score), ": AUROC "]
        lines.append(Caveat(level, [*text, *estimate(mistakes.auroc), "."]))
    return lines


def _caveats_unknown(record: Record) -> list[Caveat]:
    score, sets, lines = best_score(record), unknown_sets(record), list[Caveat]()
    if not sets:
        return [Caveat("no", ["Inputs of other kinds: no unknown set was given, so nothing was tried."])]
    words = {"trust": "recognised", "care": "mostly recognised", "no": "not recognised"}
    for item in sets:
        found = detection(record, score, item.name) if score else None
        if not score or not found:
            continue
        level = _grade(found.fpr_at_95_tpr, PASS_GOOD, PASS_FAIR)
        text: list[Part] = ["Inputs like ", Name(item.name), f" are {words[level]}: "]
        text += [*estimate(found.fpr_at_95_tpr), " pass with ", Name(score)]
        if item.mean_confidence is not None and item.mean_confidence >= SURE:
            text += [", and the network is ", Value(item.mean_confidence), " sure of them on average"]
        if is_generated(item):
            proof = "passing it proves little" if level == "trust" else "failing it weighs much"
            text.append(f". A generated set is easy: {proof}")
        text.append(".")
        lines.append(Caveat(level, text))
    if score and len(record.scores) > 1 and lines:
        text = ["The score ", Name(score), " was picked by looking at these sets: expect a little less on others."]
        lines.append(Caveat("care", text))
    return lines


def _caveats_evidence(record: Record) -> list[Caveat]:
    return [
        Caveat("care", [Name(item.name), " has only ", Value(item.count, "count"), " inputs: the intervals are wide."])
        for item in record.sets
        if item.role != "fit" and item.count < FEW
    ]
