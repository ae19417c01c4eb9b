"""Tables: read from every file, their columns by name, and what cannot be a number refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from caveat.data import Numbers, load, read
from caveat.errors import DataError, OptionError

HOUSES = """rooms,area,old,price
3,71.5,true,210.5
2,48.0,false,160.25
5,120.25,true,399.0
"""


@pytest.fixture
def houses(tmp_path):
    path = tmp_path / "houses.csv"
    path.write_text(HOUSES)
    return path


def write(path, text):
    path.write_text(text)
    return f"csv:{path}"


def test_a_csv_file_is_numbers_and_a_label(houses):
    found = read(f"csv:{houses}+label=price")
    assert isinstance(found, Numbers)
    assert found.columns == ("rooms", "area", "old")
    assert found.inputs.tolist() == [[3, 71.5, 1], [2, 48, 0], [5, 120.25, 1]]
    assert found.labels.tolist() == [210.5, 160.25, 399.0]
    assert found.labels.dtype == torch.float64


def test_without_a_column_of_that_name_there_are_no_labels(houses):
    found = read(f"csv:{houses}")
    assert (found.shape, found.labelled) == ((4,), False)
    (batch,) = list(found)
    assert isinstance(batch, torch.Tensor)


def test_columns_are_taken_by_name_in_the_order_of_the_other_set(houses, tmp_path):
    one = read(f"csv:{houses}+label=price+columns=area,rooms")
    assert one.inputs[0].tolist() == [71.5, 3]
    other = write(tmp_path / "b.csv", "id,rooms,area\n7,1,20\n")
    found = read(other, like=one)
    assert (found.inputs.tolist(), found.columns) == ([[20, 1]], ("area", "rooms"))
    with pytest.raises(DataError, match="no column 'rooms'"):
        read(write(tmp_path / "c.csv", "area,garden\n1,2\n"), like=one)


def test_names_and_whole_numbers_are_classes(tmp_path):
    named = read(write(tmp_path / "n.csv", "x,label\n1,dog\n2,cat\n3,dog\n"))
    assert (named.classes, named.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    whole = read(write(tmp_path / "w.csv", "x,label\n1,4\n2,0\n"))
    assert (whole.classes, whole.labels.dtype, whole.labels.tolist()) == (None, torch.int64, [4, 0])


def test_parquet_and_npz_give_the_same(houses, tmp_path):
    one = read(f"csv:{houses}+label=price")
    columns = {
        "rooms": [3, 2, 5],
        "area": [71.5, 48.0, 120.25],
        "old": [True, False, True],
        "price": [210.5, 160.25, 399],
    }
    pq.write_table(pa.table(columns), tmp_path / "h.parquet")
    two = read(f"parquet:{tmp_path / 'h.parquet'}+label=price")
    np.savez(tmp_path / "h.npz", X=one.inputs.numpy(), y=one.labels.numpy())
    three = read(f"npz:{tmp_path / 'h.npz'}")
    for found in (two, three):
        assert torch.equal(found.inputs, one.inputs)
        assert torch.equal(found.labels, one.labels)


def test_modifiers_choose_rows(houses):
    found = read(f"csv:{houses}+label=price+first=2")
    assert found.labels.tolist() == [210.5, 160.25]
    assert len(read(f"csv:{houses}+label=price+sample=1")) == 1
    with pytest.raises(OptionError, match="changes pictures, the set holds numbers"):
        read(f"csv:{houses}+label=price+grey")
    with pytest.raises(DataError, match="real numbers"):
        read(f"csv:{houses}+label=price+only=3")
    with pytest.raises(OptionError, match="is for tables"):
        read("digits:test+label=price")
    with pytest.raises(DataError, match="holds numbers"):
        load(f"csv:{houses}+label=price")


def test_made_sets_keep_each_column_or_its_range(houses):
    like = read(f"csv:{houses}+label=price+columns=rooms,area")
    shuffled = read("permuted", like=like, seed=3)
    assert (shuffled.generated, shuffled.labelled) == (True, False)
    assert torch.equal(shuffled.inputs.sort(dim=0).values, like.inputs.sort(dim=0).values)
    uniform = read("noise:uniform", like=like).inputs
    assert bool(((uniform >= like.inputs.amin(0)) & (uniform <= like.inputs.amax(0))).all())
    assert read("noise:normal", like=like).shape == (2,)
    assert torch.equal(read("permuted", like=like, seed=3).inputs, shuffled.inputs)
    with pytest.raises(OptionError, match="made of pictures"):
        read("blobs", like=like)


@pytest.mark.parametrize(
    ("text", "modifiers", "word"),
    [
        ("x,city,label\n1,Rome,2\n", "", "'city' holds string, not numbers"),
        ("x,z,label\n1,2,3\n4,,5\n", "", "row 1 lacks a number in column 'z'"),
        ("x,label\n1,2.5\n3,\n", "", "label is missing in row 1"),
        ("x,label\n1,2\n3,\n", "", "label is missing in row 1"),
        ("x,label\ninf,2\n", "", "inf in column 'x', row 0"),
        ("x,label\n1e300,2\n", "", "column 'x', row 0"),
        ("x,x,label\n1,2,3\n", "", "2 columns 'x'"),
        ("x,label\n", "", "no rows"),
        ("label\n1\n", "", "no column of inputs"),
        ("x,label\n1,2\n", "+label=y", "no column 'y' for the label"),
        ("x,label\n1,2\n", "+columns=x,z", "no column 'z'"),
        ("x,label\n1,2\n", "+columns=x,label", "leave it out of +columns"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, text, modifiers, word):
    with pytest.raises(DataError, match=word.replace("+", r"\+")):
        read(write(tmp_path / "bad.csv", text) + modifiers)


def test_arrays_of_text_or_of_another_length_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((3, 2)), y=np.ones(2))
    with pytest.raises(DataError, match="a label for each"):
        read(f"npz:{tmp_path / 'a.npz'}")
    np.savez(tmp_path / "b.npz", X=np.array([["a", "b"]]), y=np.ones(1))
    with pytest.raises(DataError, match="numbers"):
        read(f"npz:{tmp_path / 'b.npz'}")


def test_uci_parts_are_apart_and_together_the_table(monkeypatch, tmp_path):
    (tmp_path / "uci").mkdir()
    rows = np.arange(20.0).reshape(10, 2)
    np.savez(tmp_path / "uci" / "yacht.npz", X=rows, y=rows.sum(1), test_index=np.array([[1, 2], [3, 4]]))
    monkeypatch.setenv("CAVEAT_DATA", str(tmp_path))
    assert read("uci:yacht:test:1").inputs.tolist() == rows[[3, 4]].tolist()
    train, test = read("uci:yacht"), read("uci:yacht:test")
    assert sorted(train.labels.tolist() + test.labels.tolist()) == sorted(rows.sum(1).tolist())
    for wrong in ("uci:yacht:test:2", "uci:yacht:val", "uci:nothing"):
        with pytest.raises(OptionError):
            read(wrong)
