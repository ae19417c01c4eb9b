"""A set that is read in pieces is the set that is held: the same rows, labels, classes and refusals."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from caveat import data, models
from caveat.data import streams
from caveat.errors import DataError
from caveat.inputs import fingerprints
from caveat.training.run_folder import digest

ROWS = 90
LABELS: dict[str, list[object]] = {
    "numbers": [row % 3 for row in range(ROWS)],
    "late real": [row if row < 80 else row + 0.5 for row in range(ROWS)],
    "late names": [row % 3 if row < 80 else "b" for row in range(ROWS)],
    "names": [("cat", "dog", "")[row % 3] for row in range(ROWS)],
    "gaps": [None if row % 7 == 0 else row % 2 for row in range(ROWS)],
    "none": [],
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of few rows."""
    monkeypatch.setattr(streams, "BLOCK", 256)
    monkeypatch.setattr(streams, "ROWS", 7)


def table(place: Path, kind: str, labels: list[object]) -> str:
    """Whole numbers that become others below, a column with gaps, and one of yes and no."""
    generator = np.random.default_rng(0)
    whole = [*range(80), *(value + 0.25 for value in range(ROWS - 80))]
    gaps = [None if row < 30 or row % 5 == 0 else float(generator.random()) for row in range(ROWS)]
    columns = {"a": whole, "b": gaps, "c": [row % 2 == 0 for row in range(ROWS)]}
    names = [*columns, *(["label"] if labels else [])]
    lines = [[*(columns[each][row] for each in columns), *labels[row : row + 1]] for row in range(ROWS)]
    told = [",".join("" if cell is None else str(cell).lower() for cell in line) for line in lines]
    (place / "t.csv").write_text("\n".join([",".join(names), *told]) + "\n")
    if kind == "parquet":
        both = pyarrow.csv.read_csv(place / "t.csv")
        (place / "t").mkdir()
        pq.write_table(both.slice(0, 33), place / "t" / "a.parquet", row_group_size=20)
        pq.write_table(both.slice(33), place / "t" / "b.parquet", row_group_size=20)
        return f"parquet:{place}/t"
    return f"csv:{place}/t.csv"


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_in_pieces_is_the_table(kind: str, labels: str, tmp_path: Path) -> None:
    spec = table(tmp_path, kind, LABELS[labels])
    held, found = data.read(spec, batch=16, gaps=True), data.streamed(spec, batch=16)
    assert found is not None
    assert torch.equal(found.labels.nan_to_num(-7), held.labels.nan_to_num(-7))
    assert isinstance(held, data.Numbers)
    assert (found.classes, found.shape, found.labelled) == (held.classes, held.shape, held.labelled)
    assert found.place(3) == held.place(3)
    spans = [range(2, 40), range(61, 90)]
    for (at, rows), (wanted_at, wanted) in zip(found.chunks(spans), held.chunks(spans), strict=True):
        assert torch.equal(at, wanted_at)
        assert torch.equal(rows.nan_to_num(-7), wanted.nan_to_num(-7))
    assert torch.equal(found.take([88, 3, 3, 50])[0].nan_to_num(-7), held.take([88, 3, 3, 50])[0].nan_to_num(-7))
    assert digest(found) == digest(held)


def tagged(place: Path, kind: str, *, last: str = "0") -> str:
    """A table of two columns of numbers and two of labels; `last` stands in the last row's second one."""
    lines = [f"{row},{row % 4 / 2},{row % 2},{row // 2 % 2}" for row in range(ROWS - 1)]
    (place / "t.csv").write_text("\n".join(["a,b,one,two", *lines, f"1,1,1,{last}"]) + "\n")
    if kind == "parquet":
        pq.write_table(pyarrow.csv.read_csv(place / "t.csv"), place / "t.parquet", row_group_size=20)
    return f"{kind}:{place}/t.{kind}+label=one,two"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_several_labels_in_pieces_is_the_table(kind: str, tmp_path: Path) -> None:
    spec = tagged(tmp_path, kind)
    held = data.read(spec, batch=16, gaps=True, several=True)
    found = data.streamed(spec, batch=16, several=True)
    assert found is not None
    assert found.labels.dtype == held.labels.dtype
    assert torch.equal(found.labels, held.labels)
    assert (found.classes, found.shape, found.labelled) == (("one", "two"), (2,), True)
    for (at, rows), (_, wanted) in zip(found.chunks([range(3, 90)]), held.chunks([range(3, 90)]), strict=True):
        assert torch.equal(rows, wanted)
        assert torch.equal(found.take(at)[1], held.labels[at])
    with pytest.raises(DataError, match="expected one label for each sample, got several"):
        data.streamed(spec, batch=16)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("last", "told"), [("2", "got 2 in column 'two', row 89"), ("", "row 89 lacks a number in column 'two'")]
)
def test_a_wrong_label_of_several_is_told_by_its_row(kind: str, last: str, told: str, tmp_path: Path) -> None:
    spec = tagged(tmp_path, kind, last=last)
    for opened in (data.read, data.streamed):
        with pytest.raises(DataError, match=told):
            opened(spec, batch=16, several=True)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("labels", ["numbers", "names", "none"])
def test_texts_in_pieces_are_the_texts(kind: str, labels: str, tmp_path: Path) -> None:
    found = LABELS[labels] or [None] * ROWS
    rows = [{"text": f"text {row}\nof many" if row % 9 else "", "label": found[row]} for row in range(ROWS)]
    rows = rows if labels != "none" else [{"text": row["text"]} for row in rows]
    path = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    elif kind == "csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    model = models.text_classifier(classes=3, buckets=64, width=4).eval()
    held = data.bound(data.read(f"{kind}:{path}", batch=16), model)
    pieces = data.streamed(f"{kind}:{path}", batch=16, model=model)
    assert pieces is not None
    assert isinstance(held, data.Encoded)
    assert torch.equal(pieces.labels, held.labels)
    assert (pieces.classes, pieces.shape, pieces.notes) == (held.classes, held.shape, held.notes)
    assert len(pieces.notes) == 1
    spans = [range(5), range(40, 77)]
    for (at, made), (_, wanted) in zip(pieces.chunks(spans), held.chunks(spans), strict=True):
        assert torch.equal(fingerprints(made), fingerprints(wanted))
        assert [pieces.place(row) for row in at.tolist()] == [held.place(row) for row in at.tolist()]
    assert digest(pieces) == digest(held)


def test_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    found = data.streamed(table(tmp_path, "csv", []), batch=4)
    assert found is not None
    taken = 0

    def counted(start: int) -> Iterator[pa.RecordBatch]:
        nonlocal taken
        for rows in found.read(start):
            taken += rows.num_rows
            yield rows

    next(iter(replace(found, read=counted).chunks([range(8, 90)])))
    assert 4 <= taken < 40


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n" + "1,2\n" * 200 + "1,x\n", "CSV conversion error to double: invalid value 'x'"),
        ("a,b\n" + "1,2\n" * 200 + "1,x\n", "not every row of .* holds what the first ones do .*invalid value 'x'"),
        ("a,b\nx,2\n", "the column 'a' holds string, not numbers"),
        ("a,b\n", "no rows; there are 'a', 'b'"),
        ("a,a\n1,2\n", "there are 2 columns 'a'"),
        ("label\n1\n", "no column of inputs"),
        ("text\n\xff", "is no CSV file in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused_before_a_row_is_given(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"^csv:.*" + told):
        data.streamed(f"csv:{path}", batch=4, model=models.text_classifier(classes=3))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 of"), ('["text"]', "expected an object with a text under 'text'"),
        ('{"text": 3}', "expected an object with a text"), ('{"text": "x", "label": 1.5}', "got 1.5"),
        ('{"text": "x", "label": true}', "got True"),
    ],
)  # fmt: skip
def test_lines_that_are_no_texts_are_refused(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": 1}\n' + line)
    for opened in (data.read, lambda spec: data.streamed(spec, batch=4, model=models.text_classifier(classes=3))):
        with pytest.raises(DataError, match=r"^jsonl:.*" + told):
            opened(f"jsonl:{path}")


def test_what_is_not_read_in_pieces(tmp_path: Path) -> None:
    """Sets that `read` streams or holds."""
    spec = table(tmp_path, "csv", LABELS["numbers"])
    for other in (f"{spec}+first=10", "digits", "noise:uniform"):
        assert data.streamed(other, batch=4) is None
    assert data.streamed(spec, batch=4, columns=["b", "a"]).take([79])[0][0, 1] == 79
    assert data.streamed(f"{spec}+columns=a,b", batch=4, columns=["b", "a"]) is None
