"""Files that declare, or unpack to, far more than they hold are refused before memory is taken."""

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from caveat import tensors
from caveat.audits.arrays import observed
from caveat.data import idx, npz
from caveat.errors import DataError


def test_an_idx_file_that_declares_too_much(tmp_path: Path):
    with gzip.open(tmp_path / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">4I", 0x0803, 4_000_000_000, 28, 28) + bytes(1000))
    with pytest.raises(DataError, match="declares 3136000000000 bytes"):
        idx.open_idx(tmp_path, "test", name="mine", classes=("0",))


def test_an_idx_file_that_unpacks_to_more_than_it_declares(tmp_path: Path, monkeypatch):
    with gzip.open(tmp_path / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">4I", 0x0803, 2, 2, 2) + bytes(10_000_000))
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size))
    with pytest.raises(DataError, match="is not an idx file"):
        idx.open_idx(tmp_path, "test", name="mine", classes=("0",))
    assert asked == [16, 9]


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tensors, "MOST_UNPACKED", 1_000_000)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((2000, 28, 28), np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"unpacks to 15681\d\d bytes; at most 1000000"):
        npz.open_npz(tmp_path / "bomb.npz", name="mine")


def test_an_array_that_declares_more_than_the_archive_holds(tmp_path: Path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (400000000000, 28, 28), }\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match="is not a whole npz archive"):
        npz.open_npz(tmp_path / "bomb.npz", name="mine")


def test_outputs_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--logits` had a reader of its own, without the limit."""
    monkeypatch.setattr(tensors, "MOST_UNPACKED", 1_000_000)
    np.savez_compressed(tmp_path / "bomb.npz", logits=np.zeros((200_000, 2)), labels=np.zeros(200_000, np.int64))
    with pytest.raises(DataError, match=r"--logits: .* unpacks to \d+ bytes; at most 1000000"):
        observed(tmp_path / "bomb.npz")
