"""Files are written whole or not at all, and what cannot be read or written is one line that says what to do."""

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caveat import fitted, storage
from caveat.calibration.temperature import Temperature
from caveat.errors import CaveatError, DataError
from caveat.files import parse_json, read_bytes, read_json, replacing, write_atomically, write_bytes, writing
from caveat.posteriors import artefact
from caveat.sampling import evenly, spread, thinned
from caveat.tensors import pack, read_header, read_tensors, read_with_header, unpack, write_tensors
from caveat.training import checkpoint

READERS = {
    "bytes": lambda path: read_bytes(path, name="thing"),
    "JSON": lambda path: read_json(path, name="thing"),
    "tensors": lambda path: read_tensors(path, name="thing"),
    "header": lambda path: read_header(path, name="thing"),
    "fitted": lambda path: fitted.load(Temperature, path),
    "posterior": artefact.load,
    "checkpoint": checkpoint.load,
    "seconds": checkpoint.seconds,
}
WRITERS = {
    "text": lambda path: write_atomically(path, "new"),
    "bytes": lambda path: write_bytes(path, b"new"),
    "tensors": lambda path: write_tensors(path, {"a": torch.ones(2)}),
    "fitted": lambda path: fitted.save(Temperature(torch.ones(())), path),
    "checkpoint": lambda path: checkpoint.save(path, {"a": torch.ones(2)}),
    "observations": lambda path: observations(path),
}


def observations(path):
    with storage.File(path) as sink:
        sink.add("logits", torch.ones(2, 3))


def one_line(error, path):
    assert "\n" not in str(error)
    assert str(path) in str(error)


class TestWriting:
    @pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
    def test_a_folder_is_made_and_nothing_else_is_left(self, write, tmp_path):
        path = tmp_path / "new" / "deep" / "file"
        write(path)
        assert [p.name for p in path.parent.iterdir()] == ["file"]
        assert path.stat().st_size

    @pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
    def test_what_the_system_refuses_is_one_line(self, write, tmp_path):
        (tmp_path / "folder" / "inside").mkdir(parents=True)
        (tmp_path / "file").write_text("old")
        for path in (tmp_path / "folder", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
            with pytest.raises(
                CaveatError, match=r"output: cannot write .*: make room there, or name another"
            ) as caught:
                write(path)
            one_line(caught.value, path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
        assert (tmp_path / "file").read_text() == "old"

    @pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk_leaves_the_old_file(self, write, call, tmp_path, monkeypatch):
        path = tmp_path / "file"
        path.write_text("old")

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(CaveatError, match=r"cannot write .*file \(No space left on device\)"):
            write(path)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        assert path.read_text() == "old"

    def test_a_block_that_fails_or_writes_nothing_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")
        with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:  # noqa: PT012
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise KeyboardInterrupt
        with replacing(path):
            pass
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        assert path.read_text() == "old"
        with replacing(path) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"

    def test_data_reach_the_disk_before_the_name_and_the_name_before_the_end(self, tmp_path, monkeypatch):
        path, done = tmp_path / "file", []
        replace, sync = Path.replace, os.fsync
        monkeypatch.setattr(Path, "replace", lambda own, to: (done.append("rename"), replace(own, to))[1])
        monkeypatch.setattr(os, "fsync", lambda number: (done.append("sync"), sync(number))[1])
        write_bytes(path, b"x")
        assert done == ["sync", "rename", "sync"]

    def test_two_processes_do_not_share_a_temporary_name(self, tmp_path):
        program = (
            "import pathlib, sys; from caveat.files import replacing\n"
            "with replacing(pathlib.Path(sys.argv[1])) as path: print(path)"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "f"], capture_output=True, text=True, check=True
        ).stdout
        with replacing(tmp_path / "f") as own:
            assert str(own) != other.strip()

    def test_an_error_about_another_file_is_not_taken_for_this_one(self, tmp_path):
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "out" / "file"):
            (tmp_path / "in" / "missing").read_bytes()
        with pytest.raises(CaveatError), writing(tmp_path / "file"):
            raise OSError(errno.EIO, "input/output error")

    def test_observations_that_fail_midway_leave_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        observations(path)
        before = path.read_bytes()
        with pytest.raises(KeyboardInterrupt), storage.File(path) as sink:  # noqa: PT012
            sink.add("logits", torch.zeros(1, 3))
            raise KeyboardInterrupt
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["file"]


class TestReading:
    @pytest.mark.parametrize("read", READERS.values(), ids=READERS)
    def test_what_is_not_there_is_one_line(self, read, tmp_path):
        for path in (tmp_path / "missing", tmp_path, tmp_path / "missing" / "deeper", tmp_path / ("n" * 300)):
            with pytest.raises(DataError, match=r"^(thing|path|checkpoint): cannot read .*; check the path") as caught:
                read(path)
            one_line(caught.value, path)

    @pytest.mark.parametrize("read", [read for name, read in READERS.items() if name != "bytes"])
    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xfe junk", b"\x08" + bytes(7) + b"{]      ", b"{" * 10_000, b"[1,"]
    )
    def test_junk_is_one_line(self, read, content, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read(path)
        one_line(caught.value, path)

    @pytest.mark.parametrize("read", [READERS["tensors"], READERS["header"], READERS["fitted"], READERS["checkpoint"]])
    def test_tensor_files_cut_anywhere_are_one_line(self, read, tmp_path):
        path = tmp_path / "file"
        whole = pack({"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.long)}, header={"x": "y"})
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError) as caught:
                read(path)
            one_line(caught.value, path)

    def test_types_of_numbers_that_nobody_knows_are_one_line(self, tmp_path):
        for kind in ("F6_E2M3", "F4", "nonsense"):
            head = json.dumps({"a": {"dtype": kind, "shape": [64], "data_offsets": [0, 48]}}).encode()
            data = struct.pack("<Q", len(head)) + head + bytes(48)
            with pytest.raises(DataError, match="cannot read here as safetensors"):
                unpack(data, name="thing", where="here")


class TestJson:
    def test_what_is_read_is_what_was_written(self, tmp_path):
        value = {"a": [1, 2.5, None, True, "ä"], "b": {}}
        write_atomically(tmp_path / "x.json", json.dumps(value))
        assert read_json(tmp_path / "x.json", name="thing") == value

    def test_size_is_limited(self, tmp_path):
        write_bytes(tmp_path / "x.json", b"[" + b"1," * 40 + b"1]")
        assert len(read_json(tmp_path / "x.json", name="thing", most=83)) == 41
        with pytest.raises(DataError, match=r"thing: .*x\.json has more than 82 bytes, the most that is read"):
            read_json(tmp_path / "x.json", name="thing", most=82)

    def test_nesting_is_limited(self):
        assert parse_json("[" * 101 + "]" * 101, name="thing", where="here")
        with pytest.raises(DataError, match="thing: here is nested more than 100 deep"):
            parse_json("[" * 102 + "]" * 102, name="thing", where="here")
        with pytest.raises(DataError, match="thing: here is nested more than 100 deep"):
            parse_json('{"a":' * 102 + "1" + "}" * 102, name="thing", where="here")
        with pytest.raises(DataError, match="thing: here is not JSON"):
            parse_json("[" * 100_000 + "]" * 100_000, name="thing", where="here")

    @pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
    def test_constants_that_are_no_numbers_are_refused_unless_meant(self, text):
        with pytest.raises(DataError, match=f"thing: here is not JSON .*it holds {text}, which is no number"):
            parse_json(f'{{"a": {text}}}', name="thing", where="here")
        assert str(parse_json(text, name="thing", where="here", constants=True)) == str(float(text))

    def test_numbers_of_thousands_of_digits_are_refused(self):
        with pytest.raises(DataError, match="thing: here is not JSON"):
            parse_json("1" * 5000, name="thing", where="here")


class TestTensors:
    def test_any_layout_and_tied_weights_come_back_equal(self, tmp_path):
        weight = torch.arange(12.0).reshape(3, 4).T
        tensors = {
            "a": weight, "tied": weight, "half": weight.half(), "none": torch.zeros(0, 3),
            "last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "parameter": torch.nn.Parameter(weight),
        }  # fmt: skip
        write_tensors(tmp_path / "x", tensors, header={"kind": "ä"})
        found, header = read_with_header(tmp_path / "x")
        assert header == read_header(tmp_path / "x") == {"kind": "ä"}
        for again in (found, unpack((tmp_path / "x").read_bytes(), name="x", where="here")):
            assert set(again) == set(tensors)
            assert all(torch.equal(again[name], tensors[name]) for name in tensors)

    def test_a_header_of_another_kind_is_refused(self, tmp_path):
        write_tensors(tmp_path / "x", {"temperature": torch.ones(())}, header={"values": "[1]", "kind": "[]"})
        with pytest.raises(DataError, match="holds no fitted object"):
            fitted.load(Temperature, tmp_path / "x")
        with pytest.raises(DataError, match=r"is no posterior: its kind is \[\]"):
            artefact.load(tmp_path / "x")

    def test_a_checkpoint_says_how_long_its_training_took(self, tmp_path):
        checkpoint.save(tmp_path / "x", {"history": {"seconds": (1.5, 2.25)}})
        assert checkpoint.seconds(tmp_path / "x") == 3.75
        checkpoint.save(tmp_path / "y", {"weights": {}})
        with pytest.raises(DataError, match="does not say how long its training took"):
            checkpoint.seconds(tmp_path / "y")


class TestSampling:
    def test_evenly_spaced_ranks_have_both_ends_and_equal_steps(self):
        assert evenly(101, 6).tolist() == [0, 20, 40, 60, 80, 100]
        assert evenly(10, 4).tolist() == [0, 3, 6, 9]
        assert [evenly(3, most).tolist() for most in (0, 1, 2, 3, 9)] == [[], [0], [0, 2], [0, 1, 2], [0, 1, 2]]

    def test_no_rank_is_met_twice_or_left_out_beyond_2_to_the_24(self):
        # in float32 the last ranks of linspace come in pairs and the odd ones are left out
        count = 2**25 + 2
        ranks = evenly(count, count - 1)[-1000:]
        assert int(ranks[-1]) == count - 1
        assert len(ranks.unique()) == 1000
        assert int(ranks.diff().max()) <= 2

    def test_a_spread_takes_one_of_each_stretch_and_meets_classes_that_take_turns(self):
        chosen = spread(1000, 10)
        assert (chosen // 100).tolist() == list(range(10))
        assert torch.equal(thinned(torch.arange(1000), 10), chosen)
        assert len((spread(10_000, 1000) % 10).unique()) == 10  # a step of 10 would meet one class only
        small = torch.ones(3)
        assert thinned(small, 3) is small
