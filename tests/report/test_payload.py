import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.records.record import Record
from caveat.report.payload import PICTURE_BYTES, embed, payload, pictures, thin
from caveat.report.picks import pick


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=400).map(sorted), st.integers(3, 60))
def test_thin_keeps_the_ends_and_leaves_no_gap(x: list[float], limit: int) -> None:
    kept = thin([x], limit)
    assert (kept[0], kept[-1]) == (0, len(x) - 1)
    assert kept == sorted(set(kept))
    assert len(kept) <= limit + 1
    # Between two kept points the path is no longer than a step, or one jump of the data itself.
    step = (x[-1] - x[0]) / (limit - 1)
    for a, b in pairwise(kept):
        jump = max(x[i + 1] - x[i] for i in range(a, b))
        assert x[b] - x[a] <= step + jump + 1e-6


def test_thin_keeps_what_it_is_told() -> None:
    x = [i / 999 for i in range(1000)]
    assert set(thin([x], 10, keep=[3, 501])) >= {0, 3, 501, 999}
    assert len(thin([x], 10, keep=[3, 501])) <= 13


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_embedded_text_is_inert_and_comes_back(text: str) -> None:
    written = embed({"a": text, "</script>": [0.25]})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"a": text, "</script>": [0.25]}


def test_numbers_are_those_of_the_record(record: Record) -> None:
    data = payload(pick(record))
    for at, score in enumerate(record.scores):
        sweep = next(item for item in record.sweeps if item.score == score.name)
        sent = data["sweeps"][at]
        rows = list(zip(sweep.thresholds, sweep.accepted_correct, sweep.accepted_wrong, strict=True))
        assert all(row in rows for row in zip(sent["thresholds"], sent["right"], sent["wrong"], strict=True))
        for place, item in enumerate(data["ood"]):
            found = next(d for d in record.detections if (d.score, d.ood) == (score.name, item["name"]))
            assert data["detections"][at][place]["fpr"] == [
                found.fpr_at_95_tpr.value,
                found.fpr_at_95_tpr.low,
                found.fpr_at_95_tpr.high,
            ]
            column = sweep.accepted_ood[item["name"]]
            assert sent["accepted_ood"][place] == [column[sweep.thresholds.index(x)] for x in sent["thresholds"]]


def test_marks_are_the_smallest_thresholds_that_keep_enough(record: Record) -> None:
    for sweep in payload(pick(record))["sweeps"]:
        kept = [right + wrong for right, wrong in zip(sweep["right"], sweep["wrong"], strict=True)]
        for mark, share in zip(sweep["marks"], (0.90, 0.95, 0.99), strict=True):
            assert kept[mark] >= share - 1e-5
            assert kept[mark - 1] < share - 1e-5


def test_marks_survive_the_record_s_rounding(record: Record) -> None:
    # 671 right and 13 wrong of 720 are 0.95, but 0.931944 + 0.0180556 falls short of it.
    sweep = record.sweeps[0].model_copy(
        update={
            "thresholds": [0.0, 1.0, 2.0],
            "accepted_correct": [0.5, 671 / 720, 0.96],
            "accepted_wrong": [0.01, 13 / 720, 0.02],
            "accepted_ood": {},
        }
    )
    rounded = type(sweep).model_validate(sweep.model_dump())
    assert rounded.accepted_correct[1] + rounded.accepted_wrong[1] < 0.95
    assert payload(pick(record.model_copy(update={"sweeps": [rounded]})))["sweeps"][0]["marks"] == [1, 1, 2]


def test_marks_survive_thinning(large: Record) -> None:
    full = {item.score: item for item in large.sweeps}
    guards = {item.score: item.threshold for item in large.operating}
    data = payload(pick(large))
    assert len(data["sweeps"][0]["thresholds"]) < len(large.sweeps[0].thresholds)
    for name, sweep in zip(data["scores"], data["sweeps"], strict=True):
        first = next(
            t
            for t, a, b in zip(
                full[name].thresholds, full[name].accepted_correct, full[name].accepted_wrong, strict=True
            )
            if a + b >= 0.95 - 1e-5
        )
        assert sweep["thresholds"][sweep["marks"][1]] == guards.get(name, first)
        assert sweep["guard"] is (name in guards)


def test_the_slider_can_stand_exactly_at_the_guard_s_threshold(full: Record) -> None:
    data = payload(pick(full))
    guard = full.operating[1]
    assert data["scores"][data["start"]["score"]] == guard.score
    sweep = data["sweeps"][data["start"]["score"]]
    at = sweep["marks"][1]
    assert sweep["thresholds"][at] == guard.threshold
    assert sweep["thresholds"] == sorted(sweep["thresholds"])
    assert sweep["right"][at] + sweep["wrong"][at] == pytest.approx(guard.accepted["mnist"])
    assert sweep["wrong"][at] / guard.accepted["mnist"] == pytest.approx(guard.error)
    names = [item["name"] for item in data["ood"]]
    assert [column[at] for column in sweep["accepted_ood"]] == [guard.accepted[name] for name in names]


def test_parts_of_the_in_distribution_set_have_roles_that_the_chart_knows(full: Record) -> None:
    data = payload(pick(full))
    (colours,) = [layer["encoding"]["color"]["scale"]["domain"] for layer in data["figures"]["quantiles"]["layer"][:1]]
    assert {role for _, role in data["roles"]} <= set(colours)


def test_a_thinned_curve_keeps_its_area(large: Record) -> None:
    for sent, found in zip(payload(pick(large))["detections"][0], large.detections[:8], strict=True):
        roc = list(zip(sent["roc"]["x"], sent["roc"]["y"], strict=True))
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(roc))
        assert area == pytest.approx(found.auroc.value, abs=0.003)


def test_pictures_beyond_the_budget_are_dropped_evenly(record: Record) -> None:
    heavy = [item.model_copy(update={"png": "A" * (PICTURE_BYTES // 12)}) for item in record.pictures]
    kept = pictures(record.model_copy(update={"pictures": heavy}))
    assert len(kept) == 12
    groups = [(item.kind, item.set) for item in kept]
    assert {groups.count(group) for group in groups} == {1, 2}
    assert len(set(groups)) == len({(item.kind, item.set) for item in heavy})
    assert pictures(record) == record.pictures


def test_the_page_starts_at_the_hardest_set_of_the_best_score(record: Record) -> None:
    data = payload(pick(record))
    assert data["scores"][data["start"]["score"]] == "knn"
    assert data["ood"][data["start"]["set"]]["name"] == "kmnist"
