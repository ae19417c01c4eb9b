"""The UCI sets: splits, standardisation by the training part, and files that are broken."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from caveat.data.tabular import UCI, open_table, open_uci
from caveat.errors import DataError, OptionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    inputs = random.normal(5, 3, (40, 3))
    inputs[:, 1] = 7.1  # a column that says nothing
    tests = np.stack([random.permutation(40)[:4] for _ in range(5)]).astype(np.int32)
    np.savez(tmp_path / "yacht.npz", X=inputs, y=100 + 20 * inputs[:, 0], test_index=tests)
    return tmp_path


def test_splits_are_standardised_by_their_training_part(folder: Path):
    table = open_uci("yacht", root=folder)
    with np.load(folder / "yacht.npz") as archive:
        inputs, labels, tests = archive["X"], archive["y"], archive["test_index"]
    for number in range(5):
        split = table.split(number)
        rows = np.setdiff1d(np.arange(40), tests[number])
        assert split.labels.shape == (36,)
        assert split.inputs.dtype == split.test_labels.dtype == torch.float32
        assert split.inputs[:, 0].mean().item() == pytest.approx(0, abs=1e-6)
        assert split.inputs[:, 0].std(correction=0).item() == pytest.approx(1, rel=1e-5)
        assert split.inputs[:, 1].abs().max() < 1e-6
        assert split.centre == pytest.approx(labels[rows].mean())
        assert sorted((split.centre + split.scale * split.labels).tolist()) == pytest.approx(
            sorted(labels[rows].tolist()), rel=1e-5
        )
        assert sorted(split.test_labels.tolist()) == pytest.approx(sorted(labels[tests[number]].tolist()), rel=1e-5)
        expected = (inputs[tests[number], 0] - inputs[rows, 0].mean()) / inputs[rows, 0].std()
        assert sorted(split.test_inputs[:, 0].tolist()) == pytest.approx(sorted(expected.tolist()), rel=1e-4)


def test_batches_come_in_a_new_order_by_the_generator(folder: Path):
    split = open_uci("yacht", root=folder).split(0)
    batches = split.batches(batch=10, generator=torch.Generator().manual_seed(0))
    assert len(batches) == 4
    first, second = (torch.cat([y for _, y in batches]) for _ in range(2))
    again = torch.cat([y for _, y in split.batches(batch=10, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, split.labels.sort().values)
    inputs, labels = next(iter(batches))
    row = (split.labels == labels[3]).nonzero()[0, 0]
    assert torch.equal(inputs[3], split.inputs[row])  # pairs stay together
    with pytest.raises(OptionError, match="batch"):
        split.batches(batch=0, generator=torch.Generator())


def test_what_is_not_there_or_broken(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OptionError, match="no UCI set 'bosten'"):
        open_uci("bosten", root=folder)
    with pytest.raises(DataError, match="boston: not found"):
        open_uci("boston", root=folder)
    monkeypatch.delenv("CAVEAT_DATA", raising=False)
    with pytest.raises(DataError, match="CAVEAT_DATA, which is not set"):
        open_uci("yacht")
    monkeypatch.setenv("CAVEAT_DATA", str(folder.parent))
    folder.rename(folder.parent / "uci")
    table = open_uci("yacht")
    with pytest.raises(OptionError, match=r"a split in 0\.\.4, got 5"):
        table.split(5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((3, 2)), "y": np.zeros(3)}, r"\['test_index'\] is missing"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(4), "test_index": np.zeros((1, 1), int)}, "got shapes"),
        ({"X": np.full((3, 2), np.nan), "y": np.zeros(3), "test_index": np.zeros((1, 1), int)}, "finite"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3), "test_index": np.full((1, 1), 3)}, r"rows 0\.\.2"),
    ],
)
def test_arrays_that_cannot_be(tmp_path: Path, arrays: dict, message: str):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_table(tmp_path / "x.npz")


def test_a_damaged_file(tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(DataError, match="not a whole npz"):
        open_table(tmp_path / "x.npz")
    with pytest.raises(DataError, match="cannot read"):
        open_table(tmp_path / "y.npz")


@pytest.mark.skipif("CAVEAT_DATA" not in os.environ, reason="needs CAVEAT_DATA")
@pytest.mark.parametrize("name", UCI)
def test_the_real_sets(name: str):
    table = open_uci(name)
    assert len(table.tests) == (5 if name == "protein" else 20)
    assert len(table.labels) // 10 - 1 <= table.tests.shape[1] <= len(table.labels) // 10 + 1
    split = table.split(0)
    assert torch.isfinite(split.test_inputs).all()
    assert split.test_inputs.abs().max() < 100
