from collections.abc import Callable
from typing import Any

import pytest

from caveat.records.record import Estimate, Record, SetSummary
from caveat.report.caveats import caveats
from caveat.report.picks import best_score, mean_auroc, pick
from caveat.report.shown import plain_text as say
from caveat.report.shown import shown
from caveat.report.verdict import bottom_line, conformal, headline, next_step, summary


def verdict(record: Record) -> str:
    return " ".join(say(sentence) for sentence in headline(pick(record)))


def grades(record: Record) -> dict[str, str]:
    return {say(line.text): line.level for line in caveats(pick(record))}


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
        (0.01, 0.95, 0.96, "well calibrated"),
        (0.02, 0.95, 0.97, "slightly over-confident"),
        (0.02, 0.97, 0.95, "slightly under-confident"),
        (0.08, 0.90, 0.98, "over-confident"),
        (0.08, 0.98, 0.90, "under-confident"),
        (0.08, 0.95, 0.96, "miscalibrated, in both directions"),
    ],
)
def test_the_word_for_calibration(record: Record, ece: float, accuracy: float, confidence: float, word: str) -> None:
    text = verdict(with_calibration(record, ece=ece, accuracy=accuracy, confidence=confidence))
    assert f"It is {word}: its mean confidence is {shown(confidence, 'percent')}".replace("\u202f", " ") in text


def test_the_headline_of_the_made_up_record(record: Record) -> None:
    text = verdict(record)
    assert text.startswith(
        "Its accuracy on in-distribution data is 97.3 % (96.9\N{EN DASH}97.7). "
        "It is slightly over-confident: its mean confidence is 99.1 %, its expected calibration error (ECE) 1.8 %."
    )
    assert "The calibration temperature lowers the ECE to 0.5 %." in text
    worst = max((d for d in record.detections if d.score == "knn"), key=lambda d: d.fpr_at_95_tpr.value)
    share = shown(worst.fpr_at_95_tpr.value, "percent").replace("\u202f", " ")
    assert worst.ood == "kmnist"
    assert (
        f"but {share} of kmnist at a threshold that accepts 95 % of the in-distribution inputs it is judged on." in text
    )


def with_aurocs(record: Record, aurocs: dict[tuple[str, str], float], real: set[str]) -> Record:
    found = [
        record.detections[0].model_copy(update={"score": score, "ood": ood, "auroc": flat(value)})
        for (score, ood), value in aurocs.items()
    ]
    sets = [
        SetSummary(name=name, role="ood", source=name, count=900, shape=[1], generated=name not in real)
        for name in dict.fromkeys(ood for _, ood in aurocs)
    ]
    return record.model_copy(update={"sets": sets, "detections": found})


def test_generated_sets_do_not_weigh_where_there_are_real_ones(record: Record) -> None:
    aurocs = {("a", "real"): 0.9, ("a", "noise"): 0.6, ("a", "blobs"): 0.6}
    aurocs |= {("b", "real"): 0.8, ("b", "noise"): 1.0, ("b", "blobs"): 0.9}
    changed = with_aurocs(record, aurocs, {"real"})
    assert mean_auroc(changed) == pytest.approx({"a": 0.9, "b": 0.8})
    assert best_score(changed) == "a"
    only_generated = with_aurocs(record, aurocs, set())
    assert mean_auroc(only_generated) == pytest.approx({"a": 0.7, "b": 0.9})
    assert best_score(only_generated) == "b"


def test_means_over_different_sets_are_not_compared(record: Record) -> None:
    # b was judged on the easy set alone: its mean over one set is not compared with a's over two.
    aurocs = {("a", "easy"): 0.95, ("a", "hard"): 0.6, ("b", "easy"): 0.9}
    changed = with_aurocs(record, aurocs, {"easy", "hard"})
    assert mean_auroc(changed) == pytest.approx({"a": 0.775})
    assert best_score(changed) == "a"


def test_missing_an_easy_set_is_said_aloud(record: Record) -> None:
    shares = {name: flat(0.01) for name in ("notmnist", "fashion-mnist", "omniglot", "kmnist")}
    changed = with_passing(record, shares | {"noise": flat(0.81)})
    assert "It accepts even 81.0 % of noise, a generated set, and such sets are easy to detect." in verdict(changed)
    found = {text: level for text, level in grades(changed).items() if text.startswith("Inputs like noise ")}
    assert list(found.values()) == ["no"]
    assert next(iter(found)).startswith("Inputs like noise (generated, so easy to detect) are not detected: 81.0 %")


def test_a_calibration_that_does_not_help_is_not_praised(record: Record) -> None:
    plain, tempered = record.calibrations
    slight = tempered.summary.model_copy(update={"ece": flat(0.95 * plain.summary.ece.value)})
    changed = record.model_copy(update={"calibrations": [plain, tempered.model_copy(update={"summary": slight})]})
    assert "No calibration that was tried lowers the ECE much." in verdict(changed)
    assert not [text for text in grades(changed) if "after the calibration" in text]


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
    lines = grades(with_passing(record, shares))
    level = {name: next(v for k, v in lines.items() if k.startswith(f"Inputs like {name} ")) for name in shares}
    assert level == {"notmnist": "trust", "fashion-mnist": "care", "omniglot": "care", "kmnist": "no", "noise": "care"}
    easy = next(k for k in lines if k.startswith("Inputs like noise "))
    assert easy.endswith("and the model's mean confidence on them is 75.0 %. This proves little.")


def test_caveats_come_in_order(record: Record) -> None:
    levels = [line.level for line in caveats(pick(record))]
    assert levels == sorted(levels, key=["trust", "care", "no"].index)
    assert set(levels) == {"trust", "care", "no"}


def test_only_generated_sets(record: Record) -> None:
    sets = [item for item in record.sets if item.role != "ood" or item.name == "noise"]
    found = [item for item in record.detections if item.ood == "noise"]
    text = verdict(record.model_copy(update={"sets": sets, "detections": found}))
    assert "All the OOD sets are generated, and such sets are easy to detect: this proves little." in text


def test_no_unknown_sets(build: Callable[..., Record]) -> None:
    empty = build(scores=1, sets=0)
    assert "No OOD set was audited" in verdict(empty)
    assert grades(empty)["OOD inputs: no OOD set was audited, so nothing is known of them."] == "no"
    assert best_score(empty) == "knn"


def test_few_inputs_are_named(record: Record) -> None:
    few = [item.model_copy(update={"count": 499 if item.name == "kmnist" else 500}) for item in record.sets]
    lines = list(grades(record.model_copy(update={"sets": few})))
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


NOTHING_SHOWN = "No miscalibration is shown by this many inputs: its mean confidence is"


@pytest.mark.parametrize(
    ("ece", "confidence", "told"),
    [
        ((0.0133, 0.0, 0.0214), 0.953, NOTHING_SHOWN),  # the interval reaches zero, and 95.3 % is as likely as 95 %
        ((0.0133, 0.001, 0.0214), 0.953, NOTHING_SHOWN),  # nearly
        (
            (0.0133, 0.0011, 0.0214),
            0.953,
            "It is miscalibrated, in both directions: its mean confidence is",
        ),  # it stays off zero
        (
            (0.0133, 0.0, 0.0214),
            0.961,
            "It is slightly over-confident: its mean confidence is",
        ),  # beyond the accuracy's interval
        ((0.0133, 0.0, 0.0214), 0.939, "It is slightly under-confident: its mean confidence is"),
        ((0.0080, 0.0, 0.0100), 0.953, "It is well calibrated: its mean confidence is"),
        ((0.0080, 0.0, 0.0300), 0.953, NOTHING_SHOWN),  # a few inputs do not show that it is calibrated either
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
        assert f"({shown(ece[1], 'share')}\N{EN DASH}{shown(ece[2], 'share')})." in text
        assert "The calibration" not in text  # there is nothing to bring down
        assert pick(changed).helping is None
        told, level = next((text, level) for text, level in grades(changed).items() if "own probabilities" in text)
        assert level == "care"
        assert "no miscalibration is shown, but this many inputs cannot rule it out" in told


def test_of_a_gain_whose_intervals_overlap_nothing_is_claimed(record: Record) -> None:
    wide = verdict(noisy(record, ece=(0.02, 0.012, 0.028), confidence=0.969))
    assert "lowers the ECE to 1.0 %; their intervals overlap." in wide
    sharp = verdict(noisy(record, ece=(0.02, 0.015, 0.025), confidence=0.969))
    assert "lowers the ECE to 1.0 %." in sharp


def percent(value: float) -> str:
    return shown(value, "percent").replace("\u202f", " ")


def test_the_headline_rests_on_the_chosen_score_and_names_the_best_beside_it(full: Record) -> None:
    text, found = verdict(full), pick(full)
    guard = full.operating[1]
    assert (found.leading, found.best, guard.score) == ("mahalanobis", "knn", "mahalanobis")
    assert (
        "The score chosen on in-distribution data alone, mahalanobis, accepts "
        f"{percent(guard.accepted['notmnist'])} of notmnist but {percent(guard.accepted['kmnist'])} of kmnist at the "
        f"guard's threshold, which accepts {percent(guard.accepted['mnist'])} of in-distribution inputs."
    ) in text
    # Like with like: the same figure on the same set.
    ranks = {d.score: d.auroc.value for d in full.detections if d.ood == "kmnist"}
    assert (
        f"By mean AUROC over the real OOD sets, knn is best in hindsight: its AUROC on kmnist is "
        f"{percent(ranks['knn'])}, against {percent(ranks['mahalanobis'])} of mahalanobis."
    ) in text
    mistakes = {item.score: item.auroc.value for item in full.selective}
    best = max(mistakes, key=lambda name: mistakes[name])
    assert f"by mahalanobis: AUROC {percent(mistakes['mahalanobis'])}" in text
    assert f"({best}, best in hindsight: {percent(mistakes[best])})." in text


def test_one_number_for_one_question(full: Record) -> None:
    # What is accepted is the guard's word everywhere; the literature's FPR has another threshold.
    found = pick(full)
    share = full.operating[1].accepted["kmnist"]
    fpr = next(d for d in full.detections if (d.score, d.ood) == ("mahalanobis", "kmnist")).fpr_at_95_tpr.value
    assert percent(share) != percent(fpr)
    told = [say(bottom_line(found)), verdict(full), next(t for t in grades(full) if t.startswith("Inputs like kmnist"))]
    for text in told:
        assert percent(share) in text
        assert percent(fpr) not in text


def test_a_choice_that_is_also_the_best_is_said_once(full: Record) -> None:
    assert full.choice
    text = verdict(full.model_copy(update={"choice": full.choice.model_copy(update={"score": "knn"})}))
    assert "The score chosen on in-distribution data alone, knn, which is also the best in hindsight, accepts" in text
    assert "By mean AUROC" not in text


def test_caveats_rest_on_the_chosen_score(full: Record, record: Record) -> None:
    assert all("are accepted with mahalanobis" in line for line in grades(full) if line.startswith("Inputs like"))
    assert not [line for line in grades(full) if "was picked by looking" in line]
    assert [line for line in grades(record) if "The score knn was picked by looking at these sets" in line]


def test_a_choice_the_record_has_no_figures_of_is_not_led_with(full: Record) -> None:
    assert full.choice
    foreign = full.model_copy(update={"choice": full.choice.model_copy(update={"score": "elsewhere"})})
    assert pick(foreign).leading == "knn"
    assert "The score that is best in hindsight, knn, accepts" in verdict(foreign)


def with_accepted(record: Record, share: float) -> Record:
    """Every guard accepts this share of every OOD set."""
    names = [item.name for item in record.sets if item.role == "ood"]
    guards = [
        guard.model_copy(
            update={
                "accepted": guard.accepted | dict.fromkeys(names, share),
                "intervals": {n: flat(share) for n in names},
            }
        )
        for guard in record.operating
    ]
    return record.model_copy(update={"operating": guards})


@pytest.mark.parametrize(
    ("share", "ece", "told", "step"),
    [
        (
            0.21,
            0.001,
            "Do not rely on this model for out-of-distribution (OOD) inputs: a guard",
            "try the score knn, which is better",
        ),
        (0.20, 0.001, "This model may be used with care around out-of-distribution", "fit the guard"),
        (0.05, 0.001, "This model may be relied on where it was tested", "fit the guard"),
        (
            0.05,
            0.080,
            "This model detects out-of-distribution (OOD) inputs, but its probabilities are off",
            "fit the g",
        ),
    ],
)
def test_the_bottom_line_is_the_gravest_finding(full: Record, share: float, ece: float, told: str, step: str) -> None:
    found = pick(with_calibration(with_accepted(full, share), ece=ece, accuracy=0.95, confidence=0.97))
    assert say(bottom_line(found)).startswith(told)
    assert percent(share) in say(bottom_line(found))
    assert say(next_step(found)).startswith(step)


def test_the_bottom_line_without_evidence(full: Record, build: Callable[..., Record]) -> None:
    chance = pick(with_calibration(full, ece=0.5, accuracy=0.1, confidence=0.6))  # ten classes
    assert "accuracy is not clearly above chance" in say(bottom_line(chance))
    assert "normalisation" in say(next_step(chance))
    bare = pick(build(scores=1, sets=0))
    assert "is not known: no such set was audited" in say(bottom_line(bare))
    assert "--ood NAME=DATA" in say(next_step(bare))


def test_the_next_step_names_the_calibration_that_helps(full: Record) -> None:
    step = say(next_step(pick(with_accepted(noisy(full, ece=(0.08, 0.07, 0.09), confidence=0.99), 0.01))))
    assert step.startswith("apply the calibration temperature before reading its probabilities, and fit the guard")


def test_calibrations_that_equal_temperature_scaling_are_picked(full: Record) -> None:
    tempered = full.calibrations[1]
    hardly = tempered.summary.model_copy(update={"mce": tempered.summary.mce + 0.00001})
    clearly = tempered.summary.model_copy(update={"mce": tempered.summary.mce + 0.001})
    twins = [tempered.model_copy(update={"name": name}) for name in ("vector", "matrix")]
    twins[1] = twins[1].model_copy(update={"summary": hardly})
    other = tempered.model_copy(update={"name": "dirichlet", "summary": clearly})
    found = pick(full.model_copy(update={"calibrations": [full.calibrations[0], tempered, *twins, other]}))
    assert [item.name for item in found.same] == ["vector", "matrix"]


def test_the_summary_is_plain_text(full: Record) -> None:
    text = full.summary()
    assert text == summary(full)
    lines = text.splitlines()
    assert lines[0] == "runs/mnist-lenet, audited 2026-11-23 on mnist:test"
    assert lines[1] == say(bottom_line(pick(full)))
    assert [line for line in lines if line.startswith("Next: ")] == [f"Next: {say(next_step(pick(full)))}"]
    assert lines[-1] == "Warning: Never predicted, although in the test set: owl."
    assert len(lines) <= 12


def test_a_broken_promise_is_a_caveat(full: Record) -> None:
    lines = grades(full)
    told = [line for line in lines if line.startswith("The prediction sets of ")]
    assert len(told) == 1
    assert "of aps do not hold their guarantee to miss the true class for at most 10.0 %" in told[0]
    assert lines[told[0]] == "no"


def test_conformal_in_one_sentence(full: Record) -> None:
    assert say(conformal(pick(full))) == (
        "The prediction sets of lac may miss the true class for at most 10.0 % of in-distribution inputs. They hold "
        "it for 90.7 % (89.2\N{EN DASH}92.2) and have 1.013 classes on average, on OOD inputs up to 5.200 (noise)."
    )
    lac, aps = full.conformal
    assert pick(full).smallest_sets == lac
    wide = lac.model_copy(update={"mean_size": lac.mean_size | {"mnist": 1.9}})
    kept = aps.model_copy(update={"coverage": Estimate(value=0.89, low=0.87, high=0.9)})
    assert pick(full.model_copy(update={"conformal": [wide, kept]})).smallest_sets == kept
    small = lac.model_copy(update={"mean_size": lac.mean_size | dict.fromkeys(list(lac.mean_size)[1:], 1.013)})
    assert say(conformal(pick(full.model_copy(update={"conformal": [small]})))).endswith(
        "1.013 classes on average, and no more on any OOD set."
    )
    broken = full.model_copy(update={"conformal": [aps]})
    assert say(conformal(pick(broken))).startswith("No kind of prediction set holds its guarantee")


@pytest.mark.parametrize(("answered", "level"), [(0.61, "no"), (0.8999, "no"), (0.9001, "care")])
def test_the_guard_tells_whether_an_unlabelled_set_is_in_distribution(
    full: Record, answered: float, level: str
) -> None:
    # It is set to accept 95 %: one that rejects more than twice the other 5 % finds the set foreign.
    guards = [g.model_copy(update={"accepted": g.accepted | {"street": answered}}) for g in full.operating]
    found = grades(full.model_copy(update={"operating": guards}))
    text = next(text for text in found if "is an estimate" in text)
    assert text.startswith("The accuracy on street is an estimate, 88.4 %: nothing checks it")
    assert found[text] == level
    assert ("They may not be: with mahalanobis a guard accepts" in text) == (level == "no")
