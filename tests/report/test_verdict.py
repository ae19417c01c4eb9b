from collections.abc import Callable
from typing import Any

import pytest

from caveat.records.record import Estimate, Record, SetSummary
from caveat.report.caveats import caveats
from caveat.report.picks import best_score, helping_calibration, leading_score, mean_auroc, smallest_sets
from caveat.report.shown import Part, Value, shown
from caveat.report.verdict import conformal, headline


def say(parts: list[Part]) -> str:
    words = [p if isinstance(p, str) else shown(p.value, p.kind) if isinstance(p, Value) else p.text for p in parts]
    return "".join(words).replace("\N{NARROW NO-BREAK SPACE}", " ")


def verdict(record: Record) -> str:
    return " ".join(say(sentence) for sentence in headline(record))


def flat(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


def with_calibration(record: Record, *, ece: float, accuracy: float, confidence: float) -> Record:
    plain = record.calibrations[0]
    summary = plain.summary.model_copy(
        update={"ece": flat(ece), "accuracy": flat(accuracy), "mean_confidence": confidence}
    )
    return record.model_copy(update={"calibrations": [plain.model_copy(update={"summary": summary})]})


def with_passing(record: Record, shares: dict[str, Any]) -> Record:
    """One score, and what it lets through of each set."""
    found = [
        item.model_copy(update={"fpr_at_95_tpr": shares[item.ood]}) for item in record.detections if item.score == "knn"
    ]
    return record.model_copy(update={"detections": found})


@pytest.mark.parametrize(
    ("ece", "accuracy", "confidence", "word"),
    [
        (0.01, 0.95, 0.96, "Well calibrated"),
        (0.02, 0.95, 0.97, "Slightly over-confident"),
        (0.02, 0.97, 0.95, "Slightly under-confident"),
        (0.08, 0.90, 0.98, "Over-confident"),
        (0.08, 0.98, 0.90, "Under-confident"),
        (0.08, 0.95, 0.96, "Miscalibrated, in both directions"),
    ],
)
def test_the_word_for_calibration(record: Record, ece: float, accuracy: float, confidence: float, word: str) -> None:
    text = verdict(with_calibration(record, ece=ece, accuracy=accuracy, confidence=confidence))
    assert f"{word}: it says {shown(confidence, 'percent')}".replace("\u202f", " ") in text


def test_the_headline_of_the_made_up_record(record: Record) -> None:
    text = verdict(record)
    assert text.startswith(
        "Right on 97.3 % (96.9\N{EN DASH}97.7) of in-distribution inputs. Slightly over-confident: it says 99.1 %"
    )
    assert "The calibration temperature brings that error down to 0.5 %." in text
    worst = max((d for d in record.detections if d.score == "knn"), key=lambda d: d.fpr_at_95_tpr.value)
    share = shown(worst.fpr_at_95_tpr.value, "percent").replace("\u202f", " ")
    assert worst.ood == "kmnist"
    assert f"but {share} of kmnist: do not rely on it there." in text


def test_generated_sets_count_as_one(record: Record) -> None:
    # By hand. a: (0.9 + 0.8) / 2; b: (0.8 + (1.0 + 0.9) / 2) / 2. Counted singly, a would come to 0.8333.
    aurocs = {("a", "real"): 0.9, ("a", "noise"): 0.8, ("a", "blobs"): 0.8}
    aurocs |= {("b", "real"): 0.8, ("b", "noise"): 1.0, ("b", "blobs"): 0.9}
    found = [
        record.detections[0].model_copy(update={"score": score, "ood": ood, "auroc": flat(value)})
        for (score, ood), value in aurocs.items()
    ]
    sets = [
        SetSummary(name=name, role="ood", source=name, count=900, shape=[1], generated=name != "real")
        for name in ("real", "noise", "blobs")
    ]
    changed = record.model_copy(update={"sets": sets, "detections": found})
    assert mean_auroc(changed) == pytest.approx({"a": 0.85, "b": 0.875})
    assert best_score(changed) == "b"


def test_failing_an_easy_set_is_said_aloud(record: Record) -> None:
    shares = {name: flat(0.01) for name in ("notmnist", "fashion-mnist", "omniglot", "kmnist")}
    changed = with_passing(record, shares | {"noise": flat(0.81)})
    assert "It even lets through 81.0 % of noise, a generated set, which is easy." in verdict(changed)
    line = next(line for line in caveats(changed) if say(line.text).startswith("Inputs like noise "))
    assert line.level == "no"
    assert say(line.text).endswith("failing it weighs much.")


def test_a_calibration_that_does_not_help_is_not_praised(record: Record) -> None:
    plain, tempered = record.calibrations
    slight = tempered.summary.model_copy(update={"ece": flat(0.95 * plain.summary.ece.value)})
    changed = record.model_copy(update={"calibrations": [plain, tempered.model_copy(update={"summary": slight})]})
    assert "No calibration that was tried lowers that error much." in verdict(changed)
    assert not [line for line in caveats(changed) if "after the calibration" in say(line.text)]


def test_the_best_score_is_the_highest_mean(record: Record) -> None:
    assert best_score(record) == "knn"
    flipped = [
        item.model_copy(update={"auroc": flat(1 - item.auroc.value)})
        for item in record.detections
        if item.ood != "noise"
    ]
    assert best_score(record.model_copy(update={"detections": flipped})) == "margin"


def test_grades_of_unknown_sets(record: Record) -> None:
    shares = {
        "notmnist": Estimate(value=0.03, low=0.02, high=0.05),  # the whole interval is good
        "fashion-mnist": Estimate(value=0.04, low=0.02, high=0.06),  # good, but the interval reaches beyond
        "omniglot": flat(0.20),
        "kmnist": flat(0.21),
        "noise": flat(0.0),
    }
    lines = {say(line.text): line.level for line in caveats(with_passing(record, shares))}
    level = {name: next(v for k, v in lines.items() if k.startswith(f"Inputs like {name} ")) for name in shares}
    assert level == {"notmnist": "trust", "fashion-mnist": "care", "omniglot": "care", "kmnist": "no", "noise": "trust"}
    easy = next(k for k in lines if k.startswith("Inputs like noise "))
    assert easy.endswith("75.0 % sure of them on average. A generated set is easy: passing it proves little.")


def test_caveats_come_in_order(record: Record) -> None:
    levels = [line.level for line in caveats(record)]
    assert levels == sorted(levels, key=["trust", "care", "no"].index)
    assert set(levels) == {"trust", "care", "no"}


def test_only_generated_sets(record: Record) -> None:
    sets = [item for item in record.sets if item.role != "ood" or item.name == "noise"]
    found = [item for item in record.detections if item.ood == "noise"]
    text = verdict(record.model_copy(update={"sets": sets, "detections": found}))
    assert "All the OOD sets are generated, which is easy: this proves little." in text


def test_no_unknown_sets(build: Callable[..., Record]) -> None:
    empty = build(scores=1, sets=0)
    assert "No OOD set was given" in verdict(empty)
    assert any(line.level == "no" and "nothing was tried" in say(line.text) for line in caveats(empty))
    assert best_score(empty) == "knn"


def test_few_inputs_are_named(record: Record) -> None:
    few = [item.model_copy(update={"count": 499 if item.name == "kmnist" else 500}) for item in record.sets]
    lines = [say(line.text) for line in caveats(record.model_copy(update={"sets": few}))]
    assert [line for line in lines if "only" in line] == ["kmnist has only 499 inputs: the intervals are wide."]


def noisy(record: Record, *, ece: tuple[float, float, float], confidence: float) -> Record:
    """Accuracy 95 % (94 to 96) and this calibration error, before and after temperature scaling half of it."""
    value, low, high = ece
    own = {
        "accuracy": Estimate(value=0.95, low=0.94, high=0.96),
        "ece": Estimate(value=value, low=low, high=high),
        "mean_confidence": confidence,
    }
    plain, tempered = record.calibrations[:2]
    after = tempered.summary.model_copy(update={"ece": Estimate(value=value / 2, low=low / 2, high=high / 2)})
    calibrations = [
        plain.model_copy(update={"summary": plain.summary.model_copy(update=own)}),
        tempered.model_copy(update={"summary": after}),
    ]
    return record.model_copy(update={"calibrations": calibrations})


NOTHING_SHOWN = "No miscalibration is shown by this many inputs: it says"


@pytest.mark.parametrize(
    ("ece", "confidence", "told"),
    [
        ((0.0133, 0.0, 0.0214), 0.953, NOTHING_SHOWN),  # the interval reaches zero, and 95.3 % is as likely as 95 %
        ((0.0133, 0.001, 0.0214), 0.953, NOTHING_SHOWN),  # nearly
        ((0.0133, 0.0011, 0.0214), 0.953, "Miscalibrated, in both directions: it says"),  # it stays off zero
        ((0.0133, 0.0, 0.0214), 0.961, "Slightly over-confident: it says"),  # beyond the accuracy's interval
        ((0.0133, 0.0, 0.0214), 0.939, "Slightly under-confident: it says"),
        ((0.0080, 0.0, 0.0300), 0.953, "Well calibrated: it says"),
        ((0.0800, 0.0, 0.1600), 0.953, NOTHING_SHOWN),
    ],
)
def test_miscalibration_is_named_only_where_it_is_shown(
    record: Record, ece: tuple[float, float, float], confidence: float, told: str
) -> None:
    changed = noisy(record, ece=ece, confidence=confidence)
    text = verdict(changed)
    assert told in text
    if told == NOTHING_SHOWN:
        assert "calibration error of" in text
        assert f"({shown(ece[1], 'share')}\N{EN DASH}{shown(ece[2], 'share')})." in text
        assert "The calibration" not in text  # there is nothing to bring down
        assert helping_calibration(changed) is None
        line = next(line for line in caveats(changed) if "own probabilities" in say(line.text))
        assert line.level == "care"
        assert "no miscalibration is shown, but this many inputs cannot rule it out" in say(line.text)


def test_a_gain_within_the_noise_is_called_so(record: Record) -> None:
    wide = verdict(noisy(record, ece=(0.02, 0.012, 0.028), confidence=0.969))
    assert "brings that error down to 1.0 %, which is within the noise." in wide
    sharp = verdict(noisy(record, ece=(0.02, 0.015, 0.025), confidence=0.969))
    assert "brings that error down to 1.0 %." in sharp


def test_the_headline_rests_on_the_chosen_score_and_names_the_best_beside_it(full: Record) -> None:
    text = verdict(full)
    by = {(d.score, d.ood): shown(d.fpr_at_95_tpr.value, "percent").replace("\u202f", " ") for d in full.detections}
    assert (leading_score(full), best_score(full)) == ("mahalanobis", "knn")
    assert (
        "The score chosen on in-distribution data alone, mahalanobis, keeps 95 % of in-distribution inputs "
        f"and lets through "
        f"{by['mahalanobis', 'notmnist']} of notmnist but {by['mahalanobis', 'kmnist']} of kmnist: "
        "do not rely on it there. "
        f"By mean AUROC, knn is best in hindsight: it lets through at most {by['knn', 'kmnist']} of kmnist."
    ) in text
    found = {item.score: item.auroc.value for item in full.selective}
    best = max(found, key=lambda name: found[name])
    share = {name: shown(value, "percent").replace("\u202f", " ") for name, value in found.items()}
    assert f"by mahalanobis, a wrong answer is trusted less than a right one in {share['mahalanobis']} of pairs" in text
    assert f"({best}, best in hindsight: {share[best]})." in text


def test_a_choice_that_is_also_the_best_is_said_once(full: Record) -> None:
    assert full.choice
    text = verdict(full.model_copy(update={"choice": full.choice.model_copy(update={"score": "knn"})}))
    assert "The score chosen on in-distribution data alone, knn, which is also the best in hindsight, keeps 95" in text
    assert "By mean AUROC" not in text


def test_caveats_rest_on_the_chosen_score(full: Record, record: Record) -> None:
    def about(told: Record) -> list[str]:
        return [say(line.text) for line in caveats(told)]

    assert all("pass with mahalanobis" in line for line in about(full) if line.startswith("Inputs like"))
    assert not [line for line in about(full) if "was picked by looking" in line]
    assert [line for line in about(record) if "The score knn was picked by looking at these sets" in line]


def test_a_choice_the_record_has_no_figures_of_is_not_led_with(full: Record) -> None:
    assert full.choice
    foreign = full.model_copy(update={"choice": full.choice.model_copy(update={"score": "elsewhere"})})
    assert leading_score(foreign) == "knn"
    assert "The score that is best in hindsight, knn, keeps 95" in verdict(foreign)


def test_a_broken_promise_is_a_caveat(full: Record) -> None:
    lines = {say(line.text): line.level for line in caveats(full)}
    told = [line for line in lines if line.startswith("Sets of classes by ")]
    assert len(told) == 1
    assert "by aps do not keep their promise to miss at most 10.0 %" in told[0]
    assert lines[told[0]] == "no"


def test_conformal_in_one_sentence(full: Record) -> None:
    assert say(conformal(full)) == (
        "Sets by lac may miss the right class for at most 10.0 % of in-distribution inputs; they hold it for 90.7 % "
        "(89.2\N{EN DASH}92.2) and have 1.013 classes on average, on OOD inputs up to 5.200 (noise)."
    )
    lac, aps = full.conformal
    assert smallest_sets(full) == lac
    wide = lac.model_copy(update={"mean_size": lac.mean_size | {"mnist": 1.9}})
    kept = aps.model_copy(update={"coverage": Estimate(value=0.89, low=0.87, high=0.9)})
    assert smallest_sets(full.model_copy(update={"conformal": [wide, kept]})) == kept
    small = lac.model_copy(update={"mean_size": lac.mean_size | dict.fromkeys(list(lac.mean_size)[1:], 1.013)})
    assert say(conformal(full.model_copy(update={"conformal": [small]}))).endswith(
        "1.013 classes on average, and no more on any OOD set."
    )
    broken = full.model_copy(update={"conformal": [aps]})
    assert say(conformal(broken)).startswith("No kind keeps its promise")


@pytest.mark.parametrize(("answered", "level"), [(0.61, "no"), (0.8999, "no"), (0.9001, "care")])
def test_the_guard_doubts_an_unlabelled_set(full: Record, answered: float, level: str) -> None:
    # It is asked to answer 95 %: one that refuses more than twice the other 5 % finds the set foreign.
    guards = [g.model_copy(update={"accepted": g.accepted | {"street": answered}}) for g in full.operating]
    line = next(
        line for line in caveats(full.model_copy(update={"operating": guards})) if "is an estimate" in say(line.text)
    )
    text = say(line.text)
    assert text.startswith("The accuracy on street is an estimate, 88.4 %: nothing checks it")
    assert line.level == level
    assert ("It may not be: with mahalanobis a guard answers" in text) == (level == "no")
