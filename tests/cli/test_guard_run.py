"""`caveat guard run` as a stream: parts that a stopped run goes on with, tables with gaps, and graphs without code."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from caveat import Guard
from caveat.cli import progress, verdicts
from caveat.cli.main import app
from caveat.errors import DataError, OptionError
from caveat.guard.watching import watch
from caveat.guard.written import files, shard

NETS = """
import torch
from torch import nn

ASKED = []

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear({width}, 3, bias=False)

    def forward(self, inputs):
        if not torch.compiler.is_exporting():
            ASKED.append(len(inputs))
        return self.fc(inputs.flatten(1))
"""


def network(width: int) -> nn.Module:
    space: dict[str, object] = {}
    exec(NETS.replace("{width}", str(width)), space)
    net: nn.Module = space["Net"]()  # pyright: ignore[reportCallIssue]
    net.fc.weight = nn.Parameter(3 * torch.eye(3, width), requires_grad=False)
    return net.eval()


def inputs(count: int, shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    found = torch.rand(count, *shape, generator=generator) / 2
    found.flatten(1)[torch.arange(count), labels] += 0.4
    return found, labels


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a guard of pictures, one of a table of four columns, and sets for them."""
    monkeypatch.chdir(tmp_path)
    for name, shape in (("pictures", (1, 4, 4)), ("table", (4,))):
        width = int(np.prod(shape))
        Guard.fit(network(width), inputs(300, shape), keep=0.9, score="msp").save(name)
        Path(f"of_{name}.py").write_text(NETS.replace("{width}", str(width)))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(__import__("sys").modules, f"of_{name}", raising=False)
    images, labels = inputs(100, (1, 4, 4), seed=1)
    np.savez("new.npz", images=images.numpy(), labels=labels.numpy())
    return tmp_path


def ran(*words: object, code: int = 0) -> str:
    found = CliRunner().invoke(app, [str(word) for word in words])
    if code:
        assert isinstance(found.exception, ValueError), found.output
        return str(found.exception)
    assert found.exception is None, found.exception
    return " ".join(found.output.split())


RUN = ("guard", "run", "pictures", "npz:new.npz", "--model", "of_pictures:Net", "--batch", 7)
PARTS = (*RUN, "-o", "parts", "--rows", 30)


def parts() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("parts").iterdir())}


@pytest.mark.usefixtures("place")
def test_parts_are_the_file_and_a_stopped_run_does_only_what_is_missing() -> None:
    said = ran(*RUN, "-o", "one.parquet")
    assert said.split(" Verdicts")[0] in ran(*PARTS)
    assert [pq.read_metadata(path).num_rows for path in files("parts")] == [30, 30, 30, 10]
    one, many = pq.read_table("one.parquet"), pq.read_table("parts")
    assert many.drop_columns(["probs", "confidence", "score", "aleatoric"]).equals(
        one.drop_columns(["probs", "confidence", "score", "aleatoric"])
    )
    for name in ("probs", "confidence", "score", "aleatoric"):  # batches end elsewhere: the last digits may differ
        assert np.allclose(np.array(many[name].to_pylist()), np.array(one[name].to_pylist()), atol=1e-9)
    whole = parts()
    for number in (1, 3):
        shard(Path("parts"), number).unlink()
    asked = __import__("of_pictures").ASKED
    asked.clear()
    again = ran(*PARTS)
    assert parts() == whole
    assert sum(asked) == 40 + 4  # and the inputs that a network is known again by
    assert said.split(" For instance")[0] in again  # the counts are of all parts
    assert "Of an earlier run 2 files were there already" in again
    asked.clear()
    ran(*PARTS, "--workers", 2)
    assert sum(asked) == 4
    assert parts() == whole


@pytest.mark.usefixtures("place")
def test_another_run_into_the_same_folder_is_refused_and_changes_nothing() -> None:
    ran(*PARTS)
    shard(Path("parts"), 1).unlink()
    whole = parts()
    images, labels = inputs(100, (1, 4, 4), seed=2)
    np.savez("other.npz", images=images.numpy(), labels=labels.numpy())
    changes: tuple[tuple[tuple[object, ...], str], ...] = (
        (("--rows", 20), "rows = 30, this run has 20"), (("--seed", 1), "seed = 0, this run has 1"),
        (("--dtype", "bfloat16"), "dtype = 'float32', this run has 'bfloat16'"),
    )  # fmt: skip
    for more, message in changes:
        words = PARTS[:-2] if "--rows" in more else PARTS
        assert message in ran(*words, *more, code=2)
    assert "data = 'npz:new.npz'" in ran(*PARTS[:3], "npz:other.npz", *PARTS[4:], code=2)
    Path("new.npz").rename("kept.npz")
    Path("other.npz").rename("new.npz")
    assert "run with other data, which has changed" in ran(*PARTS, code=2)  # the same name, other pictures
    Path("kept.npz").rename("new.npz")
    ran("guard", "tune", "pictures", "--keep", 0.5)
    assert "run with another guard, or another threshold of it" in ran(*PARTS, code=2)
    assert parts() == whole
    Path("mine").mkdir()
    Path("mine/monday.parquet").write_bytes(whole["verdicts-00000.parquet"])
    assert "monday.parquet is no part of this run" in ran(*RUN, "-o", "mine", code=2)
    Path("mine/monday.parquet").rename("mine/verdicts-00000.parquet")
    Path("mine/verdicts-00000.parquet").write_bytes(b"PAR1 and no more")
    assert "was not written by caveat guard run" in ran(*RUN, "-o", "mine", code=2)
    assert "--rows: v.parquet is one file" in ran(*RUN, "-o", "v.parquet", "--rows", 5, code=2)
    assert sorted(path.name for path in Path("mine").iterdir()) == ["verdicts-00000.parquet"]


@pytest.mark.usefixtures("place")
def test_verdicts_replace_verdicts_and_nothing_else() -> None:
    rows = inputs(20, (4,), seed=3)[0].numpy()
    pq.write_table(pa.table(dict(zip("abcd", rows.T, strict=True))), "data.parquet")
    Path("mine.parquet").write_bytes(b"mine")
    before = {name: Path(name).read_bytes() for name in ("data.parquet", "mine.parquet")}
    table_run = ("guard", "run", "table", "parquet:data.parquet", "--model", "of_table:Net", "-o")
    assert "data.parquet was not written by caveat guard run and would be replaced" in ran(
        *table_run, "data.parquet", code=2
    )
    assert "mine.parquet was not written by caveat guard run" in ran(*RUN, "-o", "mine.parquet", code=2)
    assert {name: Path(name).read_bytes() for name in before} == before
    ran(*RUN, "-o", "one.parquet")
    ran(*table_run, "one.parquet")
    assert len(pq.read_table("one.parquet")) == 20


@pytest.mark.usefixtures("place")
def test_the_copy_of_a_part_is_no_part() -> None:
    ran(*PARTS)
    shard(Path("parts"), 1).write_bytes(shard(Path("parts"), 0).read_bytes())
    assert "other inputs: it is the copy of another part" in ran(*PARTS, code=2)
    with pytest.raises(
        DataError, match=r"verdicts-00001\.parquet begins at input 0 of its run and stands where input 30"
    ):
        watch("pictures", "parts", "state")
    shard(Path("parts"), 1).unlink()
    ran(*PARTS)
    assert watch("pictures", "parts", "state").fresh == 100


@pytest.mark.usefixtures("place")
def test_the_monitor_refuses_verdicts_that_say_they_are_of_another_guard() -> None:
    ran(*RUN, "-o", "one.parquet")
    images, labels = inputs(300, (1, 4, 4), seed=9)
    Guard.fit(network(16), (images, labels), keep=0.9, score="msp").save("other")
    with pytest.raises(DataError, match=r"one\.parquet is of another guard, or of another threshold of it"):
        watch("other", "one.parquet", "state")


@pytest.mark.usefixtures("place")
def test_a_set_that_lost_and_gained_an_input_is_another_set() -> None:
    """As many as before, so that all from there on stand one place before or after; wherever parts end."""
    rows = inputs(100, (4,), seed=3)[0].numpy()
    lines = [",".join(map(str, row)) for row in rows]
    Path("t.csv").write_text("\n".join(["a,b,c,d", *lines]))
    run = ("guard", "run", "table", "csv:t.csv", "--model", "of_table:Net", "-o", "parts", "--rows", 30)
    ran(*run)
    shard(Path("parts"), 1).unlink()
    for changed in (
        [*lines[:29], lines[30], lines[29], *lines[31:]],
        [*lines[:20], *lines[21:55], lines[20], *lines[55:]],
    ):
        Path("t.csv").write_text("\n".join(["a,b,c,d", *changed]))
        assert "other data, which has changed" in ran(*run, code=2)
    folder = Path("pictures_of_mine")
    folder.mkdir()
    for number in range(40):
        Image.fromarray(np.full((4, 4), 6 * number, dtype=np.uint8)).save(folder / f"p{number:02d}.png")
    run = ("guard", "run", "pictures", f"folder:{folder}", "--model", "of_pictures:Net", "-o", "files", "--rows", 10)
    ran(*run)
    (folder / "p13.png").rename(folder / "p14b.png")  # within a part
    assert "other data, which has changed" in ran(*run, code=2)


@pytest.mark.usefixtures("place")
def test_a_number_without_a_name_is_that_of_the_guards_class() -> None:
    """Classes that are called 1, 2, 3 have the numbers 0, 1, 2, as when the guard was fitted."""
    images, labels = inputs(300, (1, 4, 4))
    made = Guard.fit(network(16), (images, labels), keep=0.9, score="msp")
    made.decision = replace(made.decision, classes=("1", "2", "3"))
    made.save("named")
    labels = inputs(100, (1, 4, 4), seed=1)[1].numpy()
    labels[:2] = (3, -1)  # 3 is the name of a class and the number of none
    np.savez("new.npz", images=inputs(100, (1, 4, 4), seed=1)[0].numpy(), labels=labels)
    said = ran("guard", "run", "named", *RUN[3:], "-o", "one.parquet")
    assert "1 inputs have a label that is no class of the guard, whose numbers are 0 to 2: the largest is 3; do" in said
    found = pq.read_table("one.parquet").to_pydict()
    assert found["true_name"][:2] == ["number 3", None]
    assert found["true_name"][2:] == [("1", "2", "3")[label] for label in labels[2:]]
    right = [a == b for a, b in zip(found["true_name"], found["predicted_name"], strict=True)]
    assert sum(right) > 90
    seen = watch("named", "one.parquet", "state")
    assert seen.labelled == 98
    assert not seen.state.alarms


def test_a_file_whose_verdicts_are_damaged_is_told_from_one_of_another_run(tmp_path: Path) -> None:
    """Its end, which says what run it is of, can still be read."""
    where, settings = tmp_path / "v.parquet", {"seed": 0}
    verdicts.write([{"name": f"a{row}"} for row in range(500)], where, settings, {"name": pa.string()})
    assert verdicts.begun(where, settings, command="certify")[3] == {"name": "a3"}
    with pytest.raises(
        OptionError, match=r"does not say its start, .*another version of Caveat wrote it; choose another"
    ):
        verdicts.begun(where, settings | {"start": 0}, command="certify")
    data = bytearray(where.read_bytes())
    data[4:400] = bytes(396)
    where.write_bytes(data)
    with pytest.raises(OptionError, match=r"v\.parquet is damaged .*; remove it, or choose another file"):
        verdicts.begun(where, settings, command="certify")


@pytest.mark.usefixtures("place")
def test_a_monitor_refuses_a_hole_in_the_numbering() -> None:
    ran(*PARTS)
    shard(Path("parts"), 2).unlink()
    message = ran("guard", "monitor", "pictures", "parts", "-o", "watched", code=2)
    assert "parts lacks verdicts-00002.parquet and has later ones" in message
    assert "the same caveat guard run into it writes what is missing" in message
    shard(Path("parts"), 3).unlink()
    assert len(files("parts")) == 2  # a run that is not at its end yet
    for number in range(2):
        shard(Path("parts"), number).unlink()
    with pytest.raises(DataError, match="expected a Parquet file of verdicts"):
        files("parts")


def test_parts_stand_in_the_order_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where these outgrow their five digits."""
    monkeypatch.setattr("caveat.guard.written.shard", lambda folder, number: shard(folder, number + 99_999))
    for number in (100_000, 99_999, 100_001):
        shard(tmp_path, number).touch()
    assert [path.name[9:15] for path in files(tmp_path)] == ["99999.", "100000", "100001"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_a_row_with_a_missing_cell_abstains_and_the_others_are_answered(kind: str) -> None:
    rows, labels = inputs(12, (4,), seed=3)
    lines = [
        ",".join([*(f"{cell:.3f}" for cell in row), str(label)])
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
    ]
    names = "a,b,c,d,label"
    lines[4] = lines[4].replace(lines[4].split(",")[1], "", 1)
    lines[7] = ",".join([*lines[7].split(",")[:4], ""])  # a missing label is no invalid input
    Path("t.csv").write_text("\n".join([names, *lines]))
    if kind == "parquet":
        import pyarrow.csv

        pq.write_table(pyarrow.csv.read_csv("t.csv"), "t.parquet")
    elif kind == "npz":
        rows[4, 1] = torch.nan
        np.savez("t.npz", x=rows.numpy(), y=labels.numpy())
    whole = ran("guard", "run", "table", f"{kind}:t.{kind}", "--model", "of_table:Net", "-o", "v.parquet")
    assert "12 inputs" in whole
    assert ", 1 invalid" in whole
    found = pq.read_table("v.parquet").to_pydict()
    assert [row for row in range(12) if found["reason"][row] == "invalid input"] == [4]
    assert not found["accepted"][4]
    assert np.isnan(found["score"][4])
    assert (found["predicted"][4], found["predicted_name"][4]) == (None, None)
    assert found["true_name"] == [
        str(n) if row != 7 or kind == "npz" else None for row, n in enumerate(labels.tolist())
    ]
    answer = ran("audit", "--model", "of_table:Net", "--test", f"{kind}:t.{kind}", "-o", "audit", code=2)
    assert "row 4" in answer or "missing in row 7" in answer


@pytest.mark.usefixtures("place")
def test_a_table_is_a_stream_that_a_stopped_run_goes_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caveat.data.streams.BLOCK", 512)
    rows, labels = inputs(150, (4,), seed=3)
    lines = [",".join(map(str, [*row, label])) for row, label in zip(rows.tolist(), labels.tolist(), strict=True)]
    Path("t.csv").write_text("\n".join(["a,b,c,d,label", *lines]))
    words = ("guard", "run", "table", "--model", "of_table:Net", "--batch", 7)
    ran(*words, "csv:t.csv", "-o", "parts", "--rows", 60)
    whole = parts()
    shard(Path("parts"), 1).unlink()
    assert "Of an earlier run 2 files were there already" in ran(*words, "csv:t.csv", "-o", "parts", "--rows", 60)
    assert parts() == whole
    ran(*words, "csv:t.csv+first=150", "-o", "held", "--rows", 60)  # which is read whole
    assert pq.read_table("parts").equals(pq.read_table("held"))


@pytest.mark.usefixtures("place")
def test_generated_pictures_are_as_many_as_asked_for() -> None:
    more = ("--model", "of_pictures:Net", "-o", "v.parquet")
    assert "1234 inputs" in ran("guard", "run", "pictures", "noise:uniform+count=1234", *more)
    for data in ("npz:new.npz+count=5", "noise:uniform+count=0"):
        assert "+count is for generated pictures" in ran("guard", "run", "pictures", data, *more, code=2)


def test_how_far_it_is_is_told_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 4.0, 12.0, 12.0, 12.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    with progress.counted(4000, 1000) as count:
        count(100)
        count(200)
    said = " ".join(capsys.readouterr().err.split())
    assert said == "1,300 of 4,000 inputs, 25 a second, 1 min 48 s left"


def test_a_graph_answers_without_the_networks_code(place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from caveat.guard import onnx_guard, portable

    ran(*RUN, "-o", "v.parquet")
    ran("guard", "export", "pictures", "--model", "of_pictures:Net", "-o", "g.onnx")
    Path("of_pictures.py").unlink()
    words = ("guard", "run", "g.onnx", "npz:new.npz")
    ran(*words, "-o", "graph", "--rows", 60)
    watched = ran("guard", "monitor", "g.onnx", "graph", "-o", "of_graph").split(" verdicts, ")[1].split("Open")[0]
    assert watched in ran("guard", "monitor", "pictures", "v.parquet", "-o", "of_folder")
    assert "watches another guard" in ran("guard", "monitor", "g.onnx", "graph", "-o", "of_folder", code=2)
    wanted, found = pq.read_table("v.parquet"), pq.read_table("graph")
    assert found.column_names == wanted.column_names
    for name in wanted.column_names:
        one, other = wanted[name].to_pylist(), found[name].to_pylist()
        if name in ("confidence", "score", "aleatoric", "probs"):
            assert np.allclose(np.array(one), np.array(other), atol=1e-5)
        else:
            assert one == other, name
    for more, message in (
        (("--model", "of_pictures:Net"), "--model: g.onnx is an exported guard"),
        (("--dtype", "bfloat16"), "--dtype: g.onnx is an exported guard"),
    ):
        assert message in ran(*words, *more, code=2)
    data = Path("g.onnx").read_bytes()
    _refused(place, data.replace(b'"keep"', b'"kept"'), "was altered after it was written")
    _refused(place, b"a text", "is no ONNX file")
    proto = onnx.load_model_from_string(data)
    seal = next(entry for entry in proto.metadata_props if entry.key == portable.SEAL)

    def resealed() -> bytes:
        seal.value = portable.BLANK
        blank = proto.SerializeToString()
        return blank.replace(portable.BLANK.encode(), portable.sealed(blank).encode())

    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    _refused(place, resealed(), "keeps tensors in other files")
    proto = onnx.load_model_from_string(data)
    seal = next(entry for entry in proto.metadata_props if entry.key == portable.SEAL)
    next(entry for entry in proto.metadata_props if entry.key == "classes").value = json.dumps("all")
    _refused(place, resealed(), "the metadata of")
    del proto.metadata_props[:]
    _refused(place, proto.SerializeToString(), "not of a guard as this version exports it")
    with pytest.raises(DataError, match="cannot read"):
        onnx_guard.load(place / "missing.onnx")


def _refused(place: Path, data: bytes, message: str) -> None:
    (place / "h.onnx").write_bytes(data)
    before = sorted(place.iterdir())
    assert message in ran("guard", "run", "h.onnx", "npz:new.npz", "-o", "none", code=2)
    assert sorted(place.iterdir()) == before


@pytest.mark.usefixtures("place")
def test_ray_writes_the_same_files() -> None:
    assert "it is for --engine ray" in ran(*PARTS, "--address", "auto", code=2)
    assert "--engine: there is no 'rya'; did you mean 'ray'?" in ran(*PARTS, "--engine", "rya", code=2)
    pytest.importorskip("ray")
    assert "--engine ray: v.parquet is one file" in ran(*RUN, "-o", "v.parquet", "--engine", "ray", code=2)
    said = ran(*PARTS)
    whole = parts()
    for number in (0, 2, 3):
        shard(Path("parts"), number).unlink()
    again = ran(*PARTS, "--engine", "ray")
    assert parts() == whole
    assert said.split(" For instance")[0] in again


@pytest.mark.usefixtures("place")
def test_verdicts_are_not_put_among_other_files() -> None:
    """A guard's folder with verdicts in it was no guard any more."""
    before = sorted(path.name for path in Path("table").iterdir())
    rows, labels = inputs(12, (4,), seed=3)
    np.savez("t.npz", x=rows.numpy(), y=labels.numpy())
    said = ran("guard", "run", "table", "npz:t.npz", "--model", "of_table:Net", "-o", "table", code=2)
    assert "holds more than verdicts" in said
    assert sorted(path.name for path in Path("table").iterdir()) == before
