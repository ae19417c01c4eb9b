"""Folders and files of other people: what cannot be read is left out and counted, what would mislead is refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import caveat
from caveat import data
from caveat.audits import audit_arrays
from caveat.cli.main import app
from caveat.data import shuffled
from caveat.errors import DataError, OptionError


class Means(nn.Module):
    """Answers by the brightness of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-20.0], [20.0]]))
            self.fc.bias.copy_(torch.tensor([10.0, -10.0]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.fc(inputs.mean(dim=(1, 2, 3)).unsqueeze(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of thirty pictures: dark and light ones, each of its own grey."""
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(30):
            value = np.full((4, 4), 150 * label + 3 * number, np.uint8)
            Image.fromarray(value).save(tmp_path / "set" / name / f"{number:02}.png")
    return tmp_path / "set"


def cut(file: Path) -> None:
    """As a copy that was interrupted."""
    file.write_bytes(file.read_bytes()[:45])


def test_one_unreadable_picture_is_left_out_and_counted(folder):
    """It stopped everything."""
    cut(folder / "dark" / "07.png")
    source = data.load(f"folder:{folder}", batch=8)
    whole = [(inputs, labels) for inputs, labels in source]
    inputs, labels = (torch.cat(part) for part in zip(*whole, strict=True))
    right = [150 * label + 3 * number for label in (0, 1) for number in range(30) if (label, number) != (0, 7)]
    assert (inputs[:, 0, 0, 0] * 255).round().int().tolist() == right
    assert labels.tolist() == [0] * 29 + [1] * 30
    assert len(source) == 59
    assert (source.take([7, 58])[0][:, 0, 0, 0] * 255).round().int().tolist() == [24, 237]
    record = caveat.audit(Means().eval(), data.load(f"folder:{folder}", batch=8), scores=["msp"], replicas=2)
    assert any(
        "1 of 60 pictures could not be read and were left out, such as dark/07.png" in w for w in record.warnings
    )
    with pytest.raises(DataError, match=r"1 of 60 pictures could not be read.*; mend or remove them"):
        shuffled(data.load(f"folder:{folder}"), generator=torch.Generator())
    cut(folder / "dark" / "00.png")
    assert len(torch.cat([labels for _, labels in data.load(f"folder:{folder}")])) == 58


def test_a_derived_set_counts_its_own(folder):
    cut(folder / "light" / "03.png")
    first, rest = data.load(f"folder:{folder}+first=30"), data.load(f"folder:{folder}+6x6")
    assert [sum(len(labels) for _, labels in one) for one in (first, rest)] == [30, 59]
    assert first.remarks == []
    assert "light/03.png" in rest.remarks[0]


def test_verdicts_name_their_files(folder, tmp_path, monkeypatch):
    """An index depends on what was left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "means.py").write_text("from tests.edges.test_sources_edge import Means as net\n")
    guard = caveat.Guard.fit(Means().eval(), data.load(f"folder:{folder}"), score="msp", keep=0.5)
    guard.save(tmp_path / "guard")
    cut(folder / "dark" / "07.png")
    (folder / "dark" / "notes.tif").write_bytes(b"x")
    command = ["guard", "run", "guard", f"folder:{folder}", "--model", "means:net", "-o", "v.parquet"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    rows = pq.read_table("v.parquet").to_pylist()
    assert [row["file"] for row in rows[6:9]] == ["dark/06.png", "dark/07.png", "dark/08.png"]
    assert [row["reason"] for row in rows].count("invalid input") == 1
    assert rows[7]["reason"] == "invalid input"
    assert "1 files are no pictures that are read, by their suffix: 1 .tif" in " ".join(found.output.split())


def test_folders_that_would_shift_labels_are_passed_over_said_or_refused(folder):
    for name in ("__MACOSX", "@eaDir", ".hidden"):
        (folder / name).mkdir()
    assert data.load(f"folder:{folder}").classes == ("dark", "light")
    (folder / "Trash").mkdir()
    assert (
        "empty folders count as classes, and shift the labels after them: Trash"
        in data.load(f"folder:{folder}").notes[0]
    )
    (folder / "again").symlink_to(".")
    with pytest.raises(DataError, match="again is a link to the set itself"):
        data.load(f"folder:{folder}")
    (folder / "again").unlink()
    os.mkdir(os.fsencode(folder) + b"/\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8: rename it"):
        data.load(f"folder:{folder}")


def test_sixteen_bits_of_colour_are_refused(folder):
    """Pillow cuts them to 8 without a word."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * (25 * 4))) + chunk(b"IEND", b"")
    (folder / "dark" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    source = data.load(f"folder:{folder}+grey")
    assert sum(len(labels) for _, labels in source) == 59
    assert "16 bits a channel" in source.remarks[0]


@pytest.mark.parametrize("name", ["correct", "wrong", "test", ""])
def test_sets_in_a_file_of_arrays_may_not_take_the_names_of_the_record(name, tmp_path):
    """Their numbers stood in for the record's own."""
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(400, 5)), generator.integers(0, 5, 400)
    np.savez(tmp_path / "l.npz", **{"logits": logits, "labels": labels, f"{name}/logits": logits})
    with pytest.raises((OptionError, DataError), match="name"):
        audit_arrays(tmp_path / "l.npz", replicas=2)
