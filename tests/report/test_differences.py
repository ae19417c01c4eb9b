from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caveat.errors import OptionError
from caveat.records.record import Estimate, Record
from caveat.report.differences import (
    Row,
    apart,
    checked,
    judged,
    key_rows,
    known_rows,
    shared_sets,
    told,
    unknown_rows,
)
from caveat.report.shown import Name, Part


def say(parts: list[Part]) -> str:
    return "".join(part.text if isinstance(part, Name) else str(part) for part in parts)


def around(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def with_summary(record: Record, name: str, **changes: Estimate) -> Record:
    calibrations = [
        c.model_copy(update={"summary": c.summary.model_copy(update=changes)}) if c.name == name else c
        for c in record.calibrations
    ]
    return record.model_copy(update={"calibrations": calibrations})


def with_detection(record: Record, score: str, ood: str, **changes: Estimate) -> Record:
    found = [d.model_copy(update=changes) if (d.score, d.ood) == (score, ood) else d for d in record.detections]
    return record.model_copy(update={"detections": found})


def with_set(record: Record, name: str, **changes: Any) -> Record:
    sets = [item.model_copy(update=changes) if item.name == name else item for item in record.sets]
    return record.model_copy(update={"sets": sets})


def hashed(record: Record, **contents: str) -> Record:
    """The record with a content per set: its name, or what is given."""
    sets = [item.model_copy(update={"content": contents.get(item.name, item.name)}) for item in record.sets]
    return record.model_copy(update={"sets": sets})


def row(rows: list[Row], metric: str, about: str) -> Row:
    return next(item for item in rows if (item.metric, item.about) == (metric, about))


@pytest.mark.parametrize(
    ("value", "half", "verdict"),
    [
        (0.90, 0.01, "same"),
        (0.9006, 0.01, "noise"),
        (0.92, 0.01, "noise"),  # the ends touch
        (0.9201, 0.01, "better"),
        (0.8799, 0.01, "worse"),
        (0.88, 0.01, "noise"),
        (0.95, 0.06, "noise"),  # far, but too uncertain to tell
    ],
)
def test_a_difference_is_clear_where_the_intervals_do_not_overlap(
    record: Record, value: float, half: float, verdict: str
) -> None:
    first = with_summary(record, "none", accuracy=around(0.9, 0.01), nll=around(0.9, 0.01))
    other = with_summary(record, "none", accuracy=around(value, half), nll=around(value, half))
    rows = known_rows({"a": first, "b": other})
    reference, cell = row(rows, "Accuracy", "none").cells
    assert (reference.change, reference.verdict) == (None, None)
    assert cell.change == pytest.approx(value - 0.9)
    assert cell.verdict == verdict
    # Of NLL, less is better.
    turned = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert row(rows, "NLL", "none").cells[1].verdict == turned


def test_what_does_not_show_is_no_difference(record: Record) -> None:
    # 100.0 % and 100.0 %, though the intervals lie apart in the fifth digit.
    one = with_detection(record, "knn", "noise", auroc=around(1.0, 0.0))
    for value, verdict in {0.99996: "same", 0.99951: "same", 0.99949: "worse"}.items():
        two = with_detection(record, "knn", "noise", auroc=around(value, 0.0))
        _, each = unknown_rows({"a": one, "b": two}, "noise")
        assert row(each, "AUROC", "knn").cells[1].verdict == verdict


@given(st.floats(0.2, 0.8), st.floats(0.2, 0.8), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_turning_the_records_round_turns_the_verdict(a: float, b: float, x: float, y: float) -> None:
    from .conftest import make_record

    bare = make_record(scores=0, sets=0, calibrated=False, pictures=False)
    records = [with_summary(bare, "none", brier=around(a, x)), with_summary(bare, "none", brier=around(b, y))]
    there = row(known_rows({"a": records[0], "b": records[1]}), "Brier", "none").cells[1]
    back = row(known_rows({"a": records[1], "b": records[0]}), "Brier", "none").cells[1]
    assert there.change == -(back.change or 0.0)
    both = (there.verdict, back.verdict)
    assert both in {("same", "same"), ("noise", "noise"), ("better", "worse"), ("worse", "better")}
    assert (there.verdict in ("noise", "same")) == (abs(a - b) <= x + y) or abs(abs(a - b) - x - y) < 1e-9


def test_every_shared_calibration_has_its_rows(full: Record, record: Record) -> None:
    rows = known_rows({"full": full, "plain": record})
    assert [item.about for item in rows] == ["none", "temperature"] * 4
    assert [item.metric for item in rows[::2]] == ["Accuracy", "NLL", "Brier", "ECE"]
    assert [item.up for item in rows[::2]] == [True, False, False, False]
    assert row(rows, "ECE", "temperature").cells[0].value == full.calibrations[1].summary.ece
    # With a third record that shares more with the first, the second's cells stay empty.
    rows = known_rows({"full": full, "plain": record, "again": full})
    cells = row(rows, "ECE", "isotonic").cells
    assert [cell.value is None for cell in cells] == [False, True, False]
    assert [cell.verdict for cell in cells] == [None, None, "same"]


def test_a_set_is_shared_if_name_and_source_agree(record: Record) -> None:
    moved = with_set(record, "kmnist", source="kmnist:train")
    assert shared_sets({"a": record, "b": record}) == ["notmnist", "fashion-mnist", "kmnist", "omniglot", "noise"]
    assert shared_sets({"a": record, "b": moved}) == ["notmnist", "fashion-mnist", "omniglot", "noise"]
    assert shared_sets({"a": record, "b": moved, "c": record})[2] == "kmnist"
    assert "The set kmnist is not the same in a and b: kmnist:test in one, kmnist:train in the other." in [
        say(line) for line in apart({"a": record, "b": moved})
    ]
    _, each = unknown_rows({"a": record, "b": moved, "c": record}, "kmnist")
    assert {cell.verdict for item in each for cell in item.cells[1:2]} == {"other data"}
    assert {cell.verdict for item in each for cell in item.cells[2:]} == {"same"}


def test_scores_on_a_shared_set(full: Record) -> None:
    assert full.choice
    other = full.model_copy(update={"choice": full.choice.model_copy(update={"score": "msp"})})
    other = with_detection(other, "knn", "kmnist", fpr_at_95_tpr=around(0.2, 0.01))
    picked, each = unknown_rows({"a": full, "b": other}, "kmnist")
    found = {(d.score, d.ood): d for d in full.detections}
    assert [(item.metric, item.about) for item in picked] == [
        ("AUROC", "chosen"),
        ("FPR at 95 % TPR", "chosen"),
        ("AUROC", "best in hindsight"),
        ("FPR at 95 % TPR", "best in hindsight"),
    ]
    assert [cell.score for cell in picked[0].cells] == ["mahalanobis", "msp"]
    assert [cell.value for cell in picked[0].cells] == [
        found["mahalanobis", "kmnist"].auroc,
        found["msp", "kmnist"].auroc,
    ]
    assert picked[0].cells[1].verdict == "worse"
    assert picked[3].cells[1].verdict == "better"  # fewer OOD inputs pass
    assert [item.about for item in each[::2]] == [score.name for score in full.scores]
    assert row(each, "FPR at 95 % TPR", "knn").cells[1].verdict == "better"
    assert row(each, "FPR at 95 % TPR", "vim").cells[1].change == 0.0
    assert each[0].cells[0].score is None


def test_without_a_choice_in_every_record_the_best_stand_in(full: Record, record: Record) -> None:
    picked, _ = unknown_rows({"a": full, "b": record}, "kmnist")
    assert {item.about for item in picked} == {"best in hindsight"}
    keys = key_rows({"a": full, "b": record})
    assert [(item.metric, item.ood) for item in keys[:6]] == [
        ("Accuracy", ""), ("NLL", ""), ("Brier", ""), ("ECE", ""), ("AUROC", "notmnist"),
        ("FPR at 95 % TPR", "notmnist"),
    ]  # fmt: skip
    assert {item.about for item in keys[4:]} == {"best in hindsight"}
    assert {item.about for item in key_rows({"a": full, "b": full})[4:]} == {"chosen"}


def test_other_known_data_bring_no_verdict(full: Record) -> None:
    other = with_set(full, "mnist", source="mnist:train")
    records = {"a": full, "b": other}
    rows = [*known_rows(records), *unknown_rows(records, "noise")[1]]
    assert {cell.verdict for item in rows for cell in item.cells[1:]} == {"other data"}
    lines = [say(line) for line in apart(records)]
    assert "b was not judged on the same in-distribution data: differences are those of the data, too." in lines
    assert [say(line) for line in judged(records)] == ["Against a, b is not comparable: not the same data."]
    assert apart({"a": hashed(full), "b": hashed(full)}) == []


def test_the_verdict_in_words(full: Record) -> None:
    other = with_summary(full, "none", accuracy=around(0.5, 0.01), ece=around(0.001, 0.0005))
    for ood in ("kmnist", "omniglot"):
        other = with_detection(other, "mahalanobis", ood, fpr_at_95_tpr=around(0.001, 0.0001))
    other = with_detection(other, "mahalanobis", "noise", auroc=around(0.5, 0.01))
    assert [say(line) for line in judged({"a": full, "b": other, "c": full})] == [
        "Against a, b is clearly better in ECE, FPR on kmnist and omniglot; clearly worse in accuracy, AUROC on noise; "
        "without clear difference in all else.",
        "Against a, c is without clear difference in all that can be compared.",
    ]


def test_what_is_not_shared_is_told(full: Record, build: Callable[..., Record]) -> None:
    lean = build(scores=3, sets=1)
    lines = [say(line) for line in apart({"full": full, "lean": lean})]
    assert "Only in full: the OOD sets fashion-mnist, kmnist, noise and omniglot." in lines
    assert "Only in full: the scores energy, entropy, margin, max_logit, msp and react." in lines
    assert "Only in full: the calibrations dirichlet, histogram, isotonic, matrix and vector." in lines
    assert "In full but not in lean: the scores energy, entropy, margin, max_logit, msp and react." in [
        say(line) for line in apart({"lean": lean, "full": full})
    ]
    none = [say(line) for line in apart({"a": full, "b": build(scores=1, sets=0)})]
    assert "No OOD set is shared: figures on OOD inputs cannot be compared." in none


@pytest.mark.parametrize(("names", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b")])
def test_a_list_in_words(names: list[str], text: str) -> None:
    assert told(names) == text


@pytest.mark.parametrize("count", [0, 1, 7])
def test_as_many_as_stand_side_by_side(record: Record, count: int) -> None:
    with pytest.raises(OptionError, match=f"records: expected 2 to 6 to compare, got {count}"):
        checked({str(i): record for i in range(count)})


def test_what_a_set_holds_decides_and_not_what_it_is_called(full: Record) -> None:
    replaced = {"a": hashed(full), "b": hashed(full, mnist="other labels")}
    assert {cell.verdict for item in known_rows(replaced) for cell in item.cells[1:]} == {"other data"}
    assert [say(line) for line in judged(replaced)] == ["Against a, b is not comparable: not the same data."]
    renamed = {"a": hashed(full), "b": with_set(hashed(full), "mnist", source="after.npz")}
    assert {cell.verdict for item in known_rows(renamed) for cell in item.cells[1:]} == {"same"}
    assert apart(renamed) == []


def test_pictures_of_an_ood_set_that_were_replaced_are_told(full: Record) -> None:
    records = {"a": hashed(full), "b": hashed(full, noise="other pictures")}
    assert "noise" not in shared_sets(records)
    lines = [say(line) for line in apart(records)]
    assert any(line.startswith("The set noise is not the same in a and b: other inputs, though from") for line in lines)


def test_records_without_contents_are_compared_by_name_and_that_is_told(full: Record) -> None:
    records = {"a": full, "b": hashed(full)}
    assert {cell.verdict for item in known_rows(records) for cell in item.cells[1:]} == {"same"}
    (line,) = [say(line) for line in apart(records)]
    assert line.startswith("In a and b, taken as the same by name and size alone: the in-distribution data, notmnist, ")
    # Inputs of another size were prepared in another way: their hash says nothing.
    other = with_set(hashed(full, mnist="resized"), "mnist", shape=[3, 32, 32])
    assert {c.verdict for item in known_rows({"a": hashed(full), "b": other}) for c in item.cells[1:]} == {"same"}
