"""Sets of texts: read from files, changed, and made into the inputs of a network."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from caveat import data
from caveat.errors import CaveatError, DataError, OptionError

ROWS = 'id,text,label\n1,"a, quoted ""word""",b\n2,"two\nlines",a\n3,,b\n4,last,\n'
"""A comma, quotation marks and a line's end inside of texts, an empty text, an empty label."""


def csv(folder: Path, content: str | bytes = ROWS) -> data.Texts:
    path = folder / "texts.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = data.read(f"csv:{path}")
    assert isinstance(found, data.Texts)
    return found


def parquet(folder: Path, columns: dict[str, object]) -> data.Texts:
    pq.write_table(pa.table(columns), folder / "texts.parquet")
    found = data.read(f"parquet:{folder / 'texts.parquet'}")
    assert isinstance(found, data.Texts)
    return found


class Lengths(nn.Module):
    """A network whose tokens are the lengths of the words."""

    def encode(self, texts: list[str]) -> Tensor:
        found = [torch.tensor([len(word) for word in text.split()]) for text in texts]
        return nn.utils.rnn.pad_sequence(found, batch_first=True)


def test_a_csv_file_is_read_as_csv(tmp_path: Path) -> None:
    found = csv(tmp_path)
    assert found.texts == ('a, quoted "word"', "two\nlines", "", "last")
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [1, 0, 1, -1]


@pytest.mark.parametrize("column", ["label", "labels", "intent"])
def test_numbers_stay_numbers(tmp_path: Path, column: str) -> None:
    found = csv(tmp_path, f"{column},text\n10,x\n2,y\n-1,z\n")
    assert (found.labels.tolist(), found.classes) == ([10, 2, -1], None)  # as names, "10" would stand before "2"


def test_texts_alone_have_no_labels(tmp_path: Path) -> None:
    assert csv(tmp_path, "text\nx\ny\n").labels.tolist() == [-1, -1]
    assert parquet(tmp_path, {"text": ["x", "y"]}).labels.tolist() == [-1, -1]


def test_parquet_of_names_and_of_numbers(tmp_path: Path) -> None:
    named = parquet(tmp_path, {"text": ["x", "y", "z"], "intent": ["q", "p", None]})
    assert (named.labels.tolist(), named.classes) == ([1, 0, -1], ("p", "q"))
    numbered = parquet(tmp_path, {"text": ["x", "y"], "label": [3, 0]})
    assert (numbered.labels.tolist(), numbered.classes) == ([3, 0], None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text,text\n1,2\n", "2 columns 'text': which is meant"),
        ("text,label\n", "no texts: the file is empty"),
        (b"text\n\xff\xfe\n", "is no CSV file in UTF-8"),
        ("text,label\nx,1,2\n", "is no CSV file"),
        ("", "is no CSV file"),
        ("text,label\nx,99999999999999999999\n", "a label is 99999999999999999999"),
    ],
)
def test_a_file_that_is_no_set_of_texts_is_refused(tmp_path: Path, content: str | bytes, told: str) -> None:
    with pytest.raises(DataError, match="(?s)^csv:.*" + told):
        csv(tmp_path, content)


def test_parquet_that_is_no_set_of_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 holds None"):
        parquet(tmp_path, {"text": ["x", None]})
    with pytest.raises(DataError, match="row 0 holds 1"):
        parquet(tmp_path, {"text": [1]})
    with pytest.raises(DataError, match="must hold whole numbers or names, it holds double"):
        parquet(tmp_path, {"text": ["x"], "label": [0.5]})
    with pytest.raises(DataError, match="No such file"):
        data.read(f"csv:{tmp_path}/none.csv")


def test_modifiers_of_texts(tmp_path: Path) -> None:
    found = csv(tmp_path)
    spec = found.name
    assert data.read(f"{spec}+first=2").texts == found.texts[:2]
    assert data.read(f"{spec}+only=1").texts == (found.texts[0], found.texts[2])
    assert data.read(f"{spec}+without=1").texts == (found.texts[1], found.texts[3])
    drawn = data.read(f"{spec}+sample=3", seed=1)
    rows = [found.texts.index(text) for text in drawn.texts]
    assert rows == sorted(rows)
    assert drawn.labels.tolist() == found.labels[rows].tolist()
    with pytest.raises(OptionError, match=r"\+grey changes pictures, the set holds texts"):
        data.read(f"{spec}+grey")
    with pytest.raises(OptionError, match=r"\+28x28 changes pictures"):
        data.read(f"{spec}+28x28")
    with pytest.raises(OptionError, match=r"noise:uniform: made of pictures, but csv:.* holds texts"):
        data.read("noise:uniform", like=found)
    with pytest.raises(DataError, match="expected pictures, the set holds texts"):
        data.load(spec)


def test_the_network_makes_the_inputs(tmp_path: Path) -> None:
    found = csv(tmp_path, "text,label\na bb ccc,0\ndddd,1\nee f,0\n")
    one = data.bound(found, Lengths())
    assert isinstance(one, data.Encoded)
    assert [inputs.tolist() for inputs, _ in one] == [[[1, 2, 3], [4, 0, 0], [2, 1, 0]]]
    inputs, labels = one.take([2, 1])
    assert (inputs.tolist(), labels.tolist()) == ([[2, 1], [4, 0]], [0, 1])
    assert (len(one), one.shape, one.place(1)) == (3, (), "dddd")


def test_texts_and_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds texts, but the network has no method encode"):
        data.bound(csv(tmp_path), nn.Linear(2, 2))
    with pytest.raises(DataError, match="digits: holds pictures, but the network takes texts"):
        data.bound(data.load("digits"), Lengths())


def test_labels_follow_the_names_of_the_network(tmp_path: Path) -> None:
    found, model = csv(tmp_path), Lengths()
    model.classes = ("c", "b", "a")  # pyright: ignore[reportAttributeAccessIssue]
    one = data.bound(found, model)
    assert one.classes == ("c", "b", "a")
    assert one.labels.tolist() == [1, 2, 1, -1]
    model.classes = ("LABEL_0", "LABEL_1")  # pyright: ignore[reportAttributeAccessIssue]  # says nothing
    assert data.bound(found, model).labels.tolist() == found.labels.tolist()
    model.classes = ("a", "x")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(CaveatError, match="the network, which has no 'b'; it has a, x"):
        data.bound(found, model)


def test_training_batches_are_all_texts_in_an_order_of_the_generator(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"{'x' * (k + 1)},{k}\n" for k in range(10))
    one = data.bound(csv(tmp_path, content), Lengths())
    assert isinstance(one, data.Encoded)
    batches = data.reordered(one, batch=4, generator=torch.Generator().manual_seed(0))
    first, second = ([label for _, labels in batches for label in labels.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert len(batches) == len(list(batches)) == 3
    assert all((inputs[:, 0] == labels + 1).all() for inputs, labels in batches)


def test_clinc150_is_told_how_to_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAVEAT_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"clinc150:test: not found: no clinc150/data_full.json under CAVEAT_DATA"):
        data.read("clinc150:test")
    (tmp_path / "clinc150").mkdir()
    (tmp_path / "clinc150" / "data_full.json").write_text('{"train": [["x", "b"], ["y", "a"]], "test": [1]}')
    assert data.read("clinc150:train").labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"holds no lists of \[text, intent\]"):
        data.read("clinc150:test")


@pytest.mark.skipif("CAVEAT_DATA" not in os.environ, reason="needs CAVEAT_DATA")
def test_clinc150_as_it_was_published() -> None:
    sizes = {"train": 15000, "val": 3000, "test": 4500, "oos_train": 100, "oos_val": 100, "oos_test": 1000}
    for split, count in sizes.items():
        found = data.read(f"clinc150:{split}")
        assert isinstance(found, data.Texts)
        assert (len(found), len(found.classes or ())) == (count, 150)
        expected = [count] if split.startswith("oos") else [count // 150] * 150
        assert found.labels.unique(return_counts=True)[1].tolist() == expected
        assert (found.labels.min() == -1) == split.startswith("oos")
