"""The verdict in plain words, composed from the record's numbers."""

from caveat.records.record import Calibration, Record
from caveat.report import picks, robustness
from caveat.report.picks import Accepted, Picks
from caveat.report.shown import THIN, Name, Part, Value, between, estimate, plain_text

__all__ = [
    "ECE_FAIR",
    "ECE_GOOD",
    "PASS_FAIR",
    "PASS_GOOD",
    "RANKS_FAIR",
    "RANKS_GOOD",
    "bottom_line",
    "conformal",
    "headline",
    "next_step",
    "summary",
]

# Where a number becomes a word. All are shares.
ECE_GOOD, ECE_FAIR = 0.01, 0.03
ONE_SIDED = 0.5  # |confidence - accuracy| above this part of the ECE: the error points one way
PASS_GOOD, PASS_FAIR = 0.05, 0.20  # OOD inputs accepted
RANKS_GOOD, RANKS_FAIR = 0.90, 0.80  # AUROC of wrong against right predictions

Sentence = list[Part]


def summary(record: Record) -> str:
    """The verdict as plain text: the bottom line, the reasons, the next step."""
    found = picks.pick(record)
    title = f"{record.name or record.model}, audited {record.created[:10]} on {record.sets[0].source}"
    lines = [bottom_line(found), *headline(found), ["Next: ", *next_step(found)]]
    told = [*(plain_text(line) for line in lines), *robustness.sentences(record)]
    return "\n".join([title, *told, *(f"Warning: {text}" for text in record.warnings)])


def bottom_line(found: Picks) -> Sentence:
    """The verdict in one sentence: the gravest finding."""
    if _near_chance(found):
        return ["Do not use this model as it is: its accuracy is not clearly above chance."]
    worst = _worst(found)
    if not found.ood:
        return ["How this model behaves on out-of-distribution (OOD) inputs is not known: no such set was audited."]
    if worst is None:
        return ["Whether OOD inputs are detected is not known: the record has no figures on the OOD sets."]
    of: Sentence = [Value(worst.value), " of ", Name(worst.set.name)]
    if worst.value > PASS_FAIR:
        return ["Do not rely on this model for out-of-distribution (OOD) inputs: ", *_who(found), *of, "."]
    rest: Sentence = [": of the OOD sets audited, ", *_who(found), "at most ", *of, "."]
    if found.plain and not _calibrated(found.plain):
        return ["This model detects out-of-distribution (OOD) inputs, but its probabilities are off", *rest]
    if worst.value > PASS_GOOD:
        return ["This model may be used with care around out-of-distribution (OOD) inputs", *rest]
    return ["This model may be relied on where it was tested, including out-of-distribution (OOD) inputs", *rest]


def next_step(found: Picks) -> Sentence:
    """What to do next, in one sentence."""
    if _near_chance(found):
        return [
            "check that the normalisation is in the model and that its classes are in the data's order; audit it again."
        ]
    if not found.ood:
        return ["audit it again with OOD sets of the kind it will meet: ", Name("--ood NAME=DATA"), "."]
    worst = _worst(found)
    if worst and worst.value > PASS_FAIR:
        better = _better(found)
        if better:
            step: Sentence = [
                "try the score ",
                Name(better),
                ", which is better on these sets, on OOD sets that it was ",
            ]
            return [*step, "not picked by; else keep such inputs away from the model."]
        return [
            "keep such inputs away from the model, or train it with auxiliary OOD data (",
            Name("caveat list objectives"),
            ").",
        ]
    guard: Sentence = ["fit the guard, which abstains where the model should not be trusted: "]
    fit: Sentence = [*guard, Name("caveat guard fit FOLDER -o FOLDER/guard"), "."]
    if found.helping and found.plain and not _calibrated(found.plain):
        return ["apply the calibration ", Name(found.helping.name), " before reading its probabilities, and ", *fit]
    return fit


def headline(found: Picks) -> list[Sentence]:
    """The reasons: a few sentences, each a list of words and numbers."""
    return [*_about_calibration(found), *_about_ood(found), *_about_mistakes(found)]


def _near_chance(found: Picks) -> bool:
    """Whether the accuracy's interval reaches down to that of guessing."""
    classes = len(found.record.classes)
    return bool(found.plain) and classes > 1 and found.plain.summary.accuracy.lowest <= 1 / classes


def _calibrated(item: Calibration) -> bool:
    return item.summary.ece.value <= ECE_FAIR or not picks.miscalibration_shown(item.summary)


def _worst(found: Picks) -> Accepted | None:
    """The OOD set that is accepted most."""
    return found.accepted[-1] if found.accepted else None


def _who(found: Picks) -> Sentence:
    """Who accepts, ready for the share that is accepted."""
    name: Part = Name(found.leading or "")
    if found.guard:
        return ["a guard with the score ", name, " accepts "]
    return ["the score ", name, " accepts "]


def _about_calibration(found: Picks) -> list[Sentence]:
    if found.plain is None:
        return []
    seen = found.plain.summary
    sentences: list[Sentence] = [["Its accuracy on in-distribution data is ", *estimate(seen.accuracy), "."]]
    means: Sentence = [
        "its mean confidence is ",
        Value(seen.mean_confidence),
        ", its expected calibration error (ECE) ",
    ]
    if seen.ece.highest > ECE_GOOD and not picks.miscalibration_shown(seen):
        error: Sentence = [Value(seen.ece.value), " ", *between(seen.ece)]
        return [*sentences, ["No miscalibration is shown by this many inputs: ", *means, *error, "."]]
    sentences.append(["It is ", _calibration_word(found.plain), ": ", *means, Value(seen.ece.value), "."])
    if best := found.helping:
        after = Value(best.summary.ece.value)
        overlap = "" if best.summary.ece.highest < seen.ece.lowest else "; their intervals overlap"
        sentences.append(["The calibration ", Name(best.name), " lowers the ECE to ", after, f"{overlap}."])
    elif len(found.record.calibrations) > 1 and picks.miscalibration_shown(seen):
        sentences.append(["No calibration that was tried lowers the ECE much."])
    return sentences


def _calibration_word(item: Calibration) -> str:
    error, gap = item.summary.ece.value, item.summary.mean_confidence - item.summary.accuracy.value
    if error <= ECE_GOOD:
        return "well calibrated"
    if abs(gap) < ONE_SIDED * error:
        return "miscalibrated, in both directions"
    direction = "over-confident" if gap > 0 else "under-confident"
    return direction if error > ECE_FAIR else f"slightly {direction}"


def _about_ood(found: Picks) -> list[Sentence]:
    if found.leading is None or not found.ood:
        return [["No OOD set was audited, so nothing is known of inputs of other kinds."]]
    real = [item for item in found.accepted if not item.set.generated]
    easy = [item for item in found.accepted if item.set.generated]
    ranked = real or easy
    if not ranked:
        return []
    low, high = ranked[0], ranked[-1]
    text: Sentence = [*_subject(found), "accepts ", Value(low.value), " of ", Name(low.set.name)]
    if len(ranked) > 1:
        joint = " but " if high.value > PASS_FAIR >= low.value else " to "
        text += [joint, Value(high.value), " of ", Name(high.set.name)]
    sentences: list[Sentence] = [[*text, *_threshold(found), "."]]
    if not real:
        sentences.append(["All the OOD sets are generated, and such sets are easy to detect: this proves little."])
    elif easy and easy[-1].value > PASS_FAIR:
        text = ["It accepts even ", Value(easy[-1].value), " of ", Name(easy[-1].set.name), ", a generated set, "]
        sentences.append([*text, "and such sets are easy to detect."])
    return sentences + _hindsight(found, ranked[-1])


def _subject(found: Picks) -> Sentence:
    """The score as the subject of a sentence: how it came to be the one."""
    leading, chosen = found.leading or "", found.record.choice
    if chosen and chosen.score == leading:
        also = ", which is also the best in hindsight, " if leading == found.best and len(found.means) > 1 else ", "
        return ["The score chosen on in-distribution data alone, ", Name(leading), also]
    if len(found.means) > 1:
        return ["The score that is best in hindsight, ", Name(leading), ", "]
    return ["The score ", Name(leading), " "]


def _threshold(found: Picks) -> Sentence:
    """The threshold that these shares are for, as the end of a sentence."""
    if found.guard is None:
        return [f" at a threshold that accepts 95{THIN}% of the in-distribution inputs it is judged on"]
    test = next((item.name for item in found.record.sets if item.role == "test"), "")
    if test not in found.guard.accepted:
        return [" at the guard's threshold"]
    share = Value(found.guard.accepted[test])
    return [" at the guard's threshold, which accepts ", share, " of in-distribution inputs"]


def _hindsight(found: Picks, hardest: Accepted) -> list[Sentence]:
    """The best score beside the leading one: the same figure on the same set."""
    best, leading = found.best, found.leading
    if best == leading or best is None:
        return []
    there, here = found.detection(best, hardest.set.name), found.detection(leading, hardest.set.name)
    if there is None or here is None:
        return []
    better = "By mean AUROC over the real OOD sets" if not hardest.set.generated else "By mean AUROC over the OOD sets"
    text: Sentence = [f"{better}, ", Name(best), " is best in hindsight: its AUROC on ", Name(hardest.set.name), " is "]
    overlap = "; their intervals overlap" if there.auroc.lowest <= here.auroc.highest else ""
    return [
        [
            *text,
            Value(there.auroc.value),
            ", against ",
            Value(here.auroc.value),
            " of ",
            Name(leading or ""),
            overlap,
            ".",
        ]
    ]


def _better(found: Picks) -> str | None:
    """The best score in hindsight, if it is clearly better on the hardest real set."""
    real = [item for item in found.accepted if not item.set.generated]
    hardest = (real or found.accepted)[-1]
    there, here = found.detection(found.best, hardest.set.name), found.detection(found.leading, hardest.set.name)
    return found.best if there and here and there.auroc.lowest > here.auroc.highest else None


def _about_mistakes(found: Picks) -> list[Sentence]:
    finder, best = found.finder, found.best_finder
    if finder is None or best is None:
        return []
    ranks = finder.auroc.value
    word = "well" if ranks >= RANKS_GOOD else "fairly well" if ranks >= RANKS_FAIR else "poorly"
    text: Sentence = [
        "Misclassified inputs are detected ",
        word,
        " by ",
        Name(finder.score),
        ": AUROC ",
        Value(ranks),
    ]
    if best.score != finder.score:
        text += [" (", Name(best.score), ", best in hindsight: ", Value(best.auroc.value), ")"]
    return [[*text, "."]]


def conformal(found: Picks) -> Sentence:
    """Conformal prediction in one sentence, about the kind with the smallest sets."""
    best = found.smallest_sets
    if best is None:
        return [
            "No kind of prediction set holds its guarantee: the sets hold the true class less often than they should."
        ]
    test = next(item.name for item in found.record.sets if item.role == "test")
    text: Sentence = ["The prediction sets of ", Name(best.name), " may miss the true class for at most "]
    text += [Value(best.error), " of in-distribution inputs. They hold it for ", *estimate(best.coverage)]
    text += [" and have ", Value(best.mean_size[test], "score"), " classes on average"]
    others = [item for item in found.ood if item.name in best.mean_size]
    if others:
        largest = max(others, key=lambda item: best.mean_size[item.name])
        size = best.mean_size[largest.name]
        more: Sentence = [", on OOD inputs up to ", Value(size, "score"), " (", Name(largest.name), ")"]
        text += more if size > best.mean_size[test] else [", and no more on any OOD set"]
    return [*text, "."]
