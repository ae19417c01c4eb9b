"""A record on disk and in a notebook: which are read, and what they say of themselves."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from caveat.errors import DataError
from caveat.records.record import Record

from ..report.conftest import make_record

RECORD = make_record(scores=3, sets=2, full=True)


def test_a_record_is_read_back_from_its_file_and_from_its_folder(tmp_path: Path):
    RECORD.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == RECORD
    assert Record.load(tmp_path) == RECORD
    assert json.loads((tmp_path / "record.json").read_text())["schema_version"] == 2


def test_a_record_of_another_schema_says_to_audit_again(tmp_path: Path):
    path = tmp_path / "record.json"
    old = json.loads(RECORD.model_dump_json()) | {"schema_version": 1, "strips": []}
    path.write_text(json.dumps(old))
    for given in (path, tmp_path):
        with pytest.raises(DataError) as error:
            Record.load(given)
        assert str(path) in str(error.value)
        assert "of schema 1 (1 is Caveat 0.1's), and this one reads schema 2" in str(error.value)
        assert "audit the model again with  caveat audit" in str(error.value)


@pytest.mark.parametrize("text", ["[]", "3", '"schema"', "{}", '{"schema_version": 2}', '{"study": "x"}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is not a record of schema 2"):
        Record.load(path)
    with pytest.raises(DataError, match=r"record\.json"):
        Record.load(tmp_path)  # a folder without one


def _shorter(record: dict) -> None:
    record["sweeps"][0]["accepted_correct"].pop()


def _of_another_set(record: dict) -> None:
    next(iter(record["sweeps"][0]["accepted_ood"].values())).append(0.5)


def _without_points(record: dict) -> None:
    record["detections"][0]["roc"] = {"x": [], "y": []}


def _uneven(record: dict) -> None:
    record["detections"][0]["roc"]["y"].pop()


@pytest.mark.parametrize("change", [_shorter, _of_another_set, _without_points, _uneven])
def test_columns_that_do_not_belong_together_are_refused(tmp_path: Path, change):
    """The report ended in an error of the program."""
    record = json.loads(RECORD.model_dump_json())
    change(record)
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(
        DataError, match=r"is not a record of schema 2: (sweeps|detections)\.0.*(length|at least 1 item)"
    ):
        Record.load(tmp_path)


@pytest.mark.parametrize("value", [{}, [], None, "x"])
def test_what_is_no_number_is_refused(tmp_path: Path, value: object):
    """Rounding it was an error of the program."""
    found = json.loads(RECORD.model_dump_json())
    found["seconds"] = dict.fromkeys(found["seconds"] or ["test"], value)
    (tmp_path / "record.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="is not a record of schema"):
        Record.load(tmp_path)


@pytest.fixture(autouse=True)
def without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a test of a peer may have imported."""
    monkeypatch.delitem(sys.modules, "pandas", raising=False)


def test_rows_hold_the_figures_of_every_score_and_set():
    rows = RECORD.to_frame()
    assert isinstance(rows, list)
    assert len(rows) == 3 * 2 + 3
    assert len({tuple(row) for row in rows}) == 1  # the same columns
    row = next(row for row in rows if (row["task"], row["score"], row["set"]) == ("ood", "knn", "fashion-mnist"))
    found = next(d for d in RECORD.detections if (d.score, d.ood) == ("knn", "fashion-mnist"))
    assert (row["auroc"], row["auroc_low"], row["auroc_high"]) == (found.auroc.value, found.auroc.low, found.auroc.high)
    assert row["fpr_at_95_tpr"] == found.fpr_at_95_tpr.value
    assert row["accepted"] == next(g for g in RECORD.operating if g.score == "knn").accepted["fashion-mnist"]
    assert (row["generated"], row["aurc"]) == (False, None)
    own = next(row for row in rows if (row["task"], row["score"]) == ("misclassification", "vim"))
    assert (own["set"], own["auroc"], own["aurc"]) == (
        "mnist", RECORD.selective[2].auroc.value, RECORD.selective[2].aurc.value,
    )  # fmt: skip
    assert own["accepted"] is None  # no guard with this score


def test_a_frame_where_pandas_is_already_imported(monkeypatch: pytest.MonkeyPatch):
    rows = RECORD.to_frame()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: ("frame", rows)))
    assert RECORD.to_frame() == ("frame", rows)


def test_three_lines_say_what_it_is():
    lines = repr(RECORD).splitlines()
    assert lines[0] == "Record of runs/mnist-lenet, 2026-11-23, Caveat 0.1.0"
    assert lines[1].strip() == "accuracy 97.3%, ECE 1.8%, NLL 0.1083"
    assert lines[2].strip().startswith("3 scores (chosen: mahalanobis), OOD sets: notmnist, fashion-mnist;")
    assert len(lines) == 3
    assert repr(RECORD.model_copy(update={"name": "digits"})).startswith("Record of digits, ")
    bare = RECORD.model_copy(update={"calibrations": [], "sets": RECORD.sets[:1], "choice": None})
    assert "no figures" in repr(bare)
    assert "OOD sets: none" in repr(bare)


def test_the_table_of_a_notebook_is_escaped_and_true():
    evil = "<script>&"
    record = make_record(scores=2, sets=1, rename=lambda text: text + evil, full=True)
    html = record._repr_html_()
    assert "<script>" not in html
    assert "knn&lt;script&gt;&amp;" in html
    cells = [float(x) for x in re.findall(r"<td>([\d.]+)</td>", html)]
    auroc = {d.score: d.auroc.value for d in record.detections}
    wanted = [x for s in record.selective for x in (s.auroc.value, auroc[s.score])]
    assert cells == [pytest.approx(100 * x, abs=0.051) for x in wanted]


def test_the_report_is_the_page_of_the_record(tmp_path: Path):
    RECORD.report(tmp_path / "page.html")
    assert "<code>runs/mnist-lenet</code>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_record_needs_neither_torch_nor_the_report():
    code = (
        "import sys, caveat.records.record; "
        "sys.exit(any(name == 'torch' or name.startswith('caveat.report') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
