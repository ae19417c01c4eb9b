"""The verdict in plain words, composed from the record's numbers."""

from caveat.records.record import Calibration, Record
from caveat.report import picks
from caveat.report.shown import THIN, Name, Part, Value, between, estimate

__all__ = ["ECE_FAIR", "ECE_GOOD", "PASS_FAIR", "PASS_GOOD", "RANKS_FAIR", "RANKS_GOOD", "conformal", "headline"]

# Where a number becomes a word. All are shares.
ECE_GOOD, ECE_FAIR = 0.01, 0.03
ONE_SIDED = 0.5  # |confidence - accuracy| above this part of the ECE: the error points one way
PASS_GOOD, PASS_FAIR = 0.05, 0.20  # OOD inputs let through while 95 % of the known are kept
RANKS_GOOD, RANKS_FAIR = 0.90, 0.80  # AUROC of wrong against right answers

Sentence = list[Part]


def headline(record: Record) -> list[Sentence]:
    """The verdict: a few sentences, each a list of words and numbers."""
    return [*_about_known(record), *_about_unknown(record), *_about_mistakes(record)]


def _about_known(record: Record) -> list[Sentence]:
    plain = picks.plain(record)
    if plain is None:
        return []
    known = plain.summary
    sentences: list[Sentence] = [["Right on ", *estimate(known.accuracy), " of in-distribution inputs."]]
    says: Sentence = ["it says ", Value(known.mean_confidence), " on average, with a calibration error of "]
    if known.ece.value > ECE_GOOD and not picks.miscalibration_shown(known):
        error: Sentence = [Value(known.ece.value), " ", *between(known.ece)]
        return [*sentences, ["No miscalibration is shown by this many inputs: ", *says, *error, "."]]
    sentences.append([_calibration_word(plain).capitalize(), ": ", *says, Value(known.ece.value), "."])
    if best := picks.helping_calibration(record):
        after = Value(best.summary.ece.value)
        noise = "" if best.summary.ece.high < known.ece.low else ", which is within the noise"
        sentences.append(["The calibration ", Name(best.name), " brings that error down to ", after, f"{noise}."])
    elif len(record.calibrations) > 1 and picks.miscalibration_shown(known):
        sentences.append(["No calibration that was tried lowers that error much."])
    return sentences


def _calibration_word(item: Calibration) -> str:
    error, gap = item.summary.ece.value, item.summary.mean_confidence - item.summary.accuracy.value
    if error <= ECE_GOOD:
        return "well calibrated"
    if abs(gap) < ONE_SIDED * error:
        return "miscalibrated, in both directions"
    direction = "over-confident" if gap > 0 else "under-confident"
    return direction if error > ECE_FAIR else f"slightly {direction}"


def _about_unknown(record: Record) -> list[Sentence]:
    score, sets = picks.leading_score(record), picks.unknown_sets(record)
    if score is None or not sets:
        return [["No OOD set was given, so nothing can be said about inputs of other kinds."]]
    real, easy = _passing(record, score)
    ranked = real or easy
    if not ranked:
        return []
    best = picks.best_score(record)
    text: Sentence = [*_named(record, score, best), f" keeps 95{THIN}% of in-distribution inputs and lets through "]
    (low_name, low), (high_name, high) = ranked[0], ranked[-1]
    text += [Value(low), " of ", Name(low_name)]
    if len(ranked) > 1:
        text += [" but " if high > PASS_FAIR >= low else " to ", Value(high), " of ", Name(high_name)]
    sentences: list[Sentence] = [[*text, ": do not rely on it there." if high > PASS_FAIR else "."]]
    if not real:
        sentences.append(["All the OOD sets are generated, which is easy: this proves little."])
    elif easy and easy[-1][1] > PASS_FAIR:
        name, worst = easy[-1]
        tail = ", a generated set, which is easy."
        sentences.append(["It even lets through ", Value(worst), " of ", Name(name), tail])
    if best and best != score:
        sentences += _hindsight(record, best)
    return sentences


def _named(record: Record, score: str, best: str | None) -> Sentence:
    """The score as the subject of a sentence: how it came to be the one."""
    if record.choice and record.choice.score == score:
        also = ", which is also the best in hindsight," if best == score and len(record.scores) > 1 else ","
        return ["The score chosen on in-distribution data alone, ", Name(score), also]
    return ["The score that is best in hindsight, " if len(record.scores) > 1 else "The score, ", Name(score), ","]


def _hindsight(record: Record, best: str) -> list[Sentence]:
    real, easy = _passing(record, best)
    if not (ranked := real or easy):
        return []
    (name, worst), at_most = ranked[-1], "" if len(ranked) == 1 else "at most "
    lets: Sentence = [f" is best in hindsight: it lets through {at_most}", Value(worst), " of ", Name(name), "."]
    return [["By mean AUROC, ", Name(best), *lets]]


def _passing(record: Record, score: str) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The OOD sets, real and generated, with the share that the score lets through; the least first."""
    found = [(item, picks.detection(record, score, item.name)) for item in picks.unknown_sets(record)]
    shares = [(item.generated, (item.name, d.fpr_at_95_tpr.value)) for item, d in found if d]
    ordered = sorted(shares, key=lambda share: share[1][1])
    return [pair for made, pair in ordered if not made], [pair for made, pair in ordered if made]


def _about_mistakes(record: Record) -> list[Sentence]:
    found, best = picks.finder(record), picks.best_finder(record)
    if found is None or best is None:
        return []
    good = "a good" if found.auroc.value >= RANKS_GOOD else "some" if found.auroc.value >= RANKS_FAIR else "little"
    text: Sentence = [f"Of its own mistakes it has {good} notion: by ", Name(found.score)]
    text += [", a wrong answer is trusted less than a right one in ", Value(found.auroc.value), " of pairs"]
    if best.score != found.score:
        text += [" (", Name(best.score), ", best in hindsight: ", Value(best.auroc.value), ")"]
    return [[*text, "."]]


def conformal(record: Record) -> Sentence:
    """Conformal prediction in one sentence, about the kind with the smallest sets."""
    best = picks.smallest_sets(record)
    if best is None:
        return ["No kind keeps its promise: the sets hold the right class less often than they should."]
    known = next(item.name for item in record.sets if item.role == "test")
    text: Sentence = ["Sets by ", Name(best.name), " may miss the right class for at most ", Value(best.error)]
    text += [" of in-distribution inputs; they hold it for ", *estimate(best.coverage), " and have "]
    text += [Value(best.mean_size[known], "score"), " classes on average"]
    others = [item for item in picks.unknown_sets(record) if item.name in best.mean_size]
    if others:
        largest = max(others, key=lambda item: best.mean_size[item.name])
        size = best.mean_size[largest.name]
        more: Sentence = [", on OOD inputs up to ", Value(size, "score"), " (", Name(largest.name), ")"]
        text += more if size > best.mean_size[known] else [", and no more on any OOD set"]
    return [*text, "."]
