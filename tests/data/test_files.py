"""Sets read from files: Parquet, folders, npz, idx."""

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import shapes_unchecked

from caveat import data, tensors
from caveat.data.idx import open_idx
from caveat.data.parquet import find, open_parquet
from caveat.errors import DataError

from .conftest import png


def pixels(inputs: torch.Tensor) -> np.ndarray:
    return (inputs * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture
def two_files(tmp_path: Path, arrays: np.ndarray, write_parquet: Callable[..., Path]) -> Path:
    """23 pictures in two files with row groups of 7."""
    names = json.dumps({"info": {"features": {"label": {"names": [f"class {k}" for k in range(23)]}}}}).encode()
    pictures, labels = [png(array) for array in arrays], list(range(22, -1, -1))
    write_parquet(tmp_path / "a.parquet", pictures[:15], labels[:15], metadata=names)
    write_parquet(tmp_path / "b.parquet", pictures[15:], labels[15:], metadata=names)
    return tmp_path


def test_parquet_gives_every_picture_once_and_in_order(two_files: Path, arrays: np.ndarray):
    source = data.load(f"parquet:{two_files}", batch=4)
    assert (len(source), source.shape) == (23, (3, 6, 5))
    assert source.classes is not None
    assert source.classes[22] == "class 22"
    for _ in range(2):
        assert np.array_equal(np.concatenate([pixels(inputs) for inputs, _ in source]), arrays)
    assert torch.cat([labels for _, labels in source]).tolist() == list(range(22, -1, -1))


def test_parquet_take_in_any_order(two_files: Path, arrays: np.ndarray):
    source = data.load(f"parquet:{two_files}", batch=3)

    @given(st.lists(st.integers(0, 22), min_size=1, max_size=12))
    def check(indices: list[int]) -> None:
        inputs, labels = source.take(indices)
        assert np.array_equal(pixels(inputs), arrays[indices])
        assert labels.tolist() == [22 - index for index in indices]

    check()


def test_parquet_long_row_groups_are_streamed(tmp_path: Path, write_parquet: Callable[..., Path]):
    """Over 256 rows a group: the cursor must go on within the group, and back to its start."""
    arrays = np.random.default_rng(0).integers(0, 256, (700, 1, 1), dtype=np.uint8)
    path = write_parquet(tmp_path / "a.parquet", [png(a) for a in arrays], None, group=600)
    source = data.load(f"parquet:{path}", batch=2)  # so that the last picture asked for lies before where we are
    assert source.labels.unique().tolist() == [-1]
    assert np.array_equal(np.concatenate([pixels(inputs) for inputs, _ in source])[:, :, :, 0], arrays)
    assert np.array_equal(pixels(source.take([699, 3, 520, 255, 256])[0])[:, :, :, 0], arrays[[699, 3, 520, 255, 256]])


def test_parquet_columns_of_other_names(tmp_path: Path, arrays: np.ndarray, write_parquet: Callable[..., Path]):
    path = write_parquet(tmp_path / "a.parquet", [png(arrays[0])], [5], column="img", label="fine_label")
    assert data.load(f"parquet:{path}").labels.tolist() == [5]
    pq.write_table(pa.table({"image": [png(arrays[1])]}), path)  # plain bytes
    assert np.array_equal(pixels(data.load(f"parquet:{path}").take([0])[0]), arrays[1:2])


def test_broken_parquet(two_files: Path, tmp_path: Path, write_parquet: Callable[..., Path]):
    whole = (two_files / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"^parquet:.*cut.parquet is not a whole Parquet file"):
        data.load(f"parquet:{tmp_path}/cut.parquet")
    damaged = bytearray(whole)
    damaged[4:400] = bytes(396)
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(DataError, match=r"broken|not a readable"):
        list(data.load(f"parquet:{tmp_path}/damaged.parquet"))
    path = write_parquet(tmp_path / "c" / "x.parquet", [png(np.zeros((2, 2), np.uint8)), b"junk"], None)
    source = data.load(f"parquet:{path}")
    assert [len(labels) for _, labels in source] == [1]
    assert re.match(r"parquet:.*: 1 of 2 pictures could not .* such as picture 1 \(not a readable", source.remarks[0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "expected pictures, the set holds texts"),
        ({"image": pa.array([], pa.binary())}, "the file is empty"),
        ({"image": [None, png(np.zeros((2, 2), np.uint8))]}, "rows without the picture's bytes"),
        ({"image": [png(np.zeros((2, 2), np.uint8))], "label": ["cat"]}, "'label' must hold whole numbers"),
    ],
)
def test_parquet_of_another_kind(tmp_path: Path, columns: dict, message: str):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        data.load(f"parquet:{tmp_path}/a.parquet")


def class_names(names: str) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": {"label": {"names": list(names)}}}}).encode()}


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"image": ["/etc/passwd"] * 3, "label": [0, 1, 2]}, "abc", r"b\.parquet: no column image"),
        ({"image": 3}, "abc", r"the columns of labels differ: label in a.parquet, None in b.parquet"),
        (
            {"img": 3, "label": [0, 1, 2]},
            "abc",
            r"the columns of pictures differ: image in a.parquet, img in b.parquet",
        ),
        ({"image": 3, "label": [0, 1, 2]}, "cba", r"the class names differ: \('a', 'b', 'c'\) in a.parquet, \('c'"),
        ({"image": 3, "label": pa.array([2**63 + 1] * 3, pa.uint64())}, "abc", r"a label that is no class number"),
    ],
)
def test_every_parquet_file_is_as_the_first(tmp_path: Path, columns: dict, names: str, message: str):
    pictures = [png(np.zeros((2, 2), np.uint8))] * 3
    first = pa.table({"image": pictures, "label": [0, 1, 2]}).replace_schema_metadata(class_names("abc"))
    columns = {name: pictures if values == 3 else values for name, values in columns.items()}
    pq.write_table(first, tmp_path / "a.parquet")
    pq.write_table(pa.table(columns).replace_schema_metadata(class_names(names)), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=message):
        data.load(f"parquet:{tmp_path}")


def test_find(tmp_path: Path, arrays: np.ndarray, write_parquet: Callable[..., Path]):
    for split in ("test", "train"):
        for part in (0, 1):
            write_parquet(tmp_path / f"{split}-0000{part}-of-00002.parquet", [png(arrays[part])], [part])
    with pytest.raises(DataError, match=r"several splits \(test, train\)"):
        find(str(tmp_path), name="x")
    files = find(f"{tmp_path}/test-*", name="x")
    assert [file.name[:10] for file in files] == ["test-00000", "test-00001"]
    assert open_parquet(files, name="x").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="no Parquet file at"):
        find(f"{tmp_path}/val-*", name="x")


def test_folder(tmp_path: Path, arrays: np.ndarray):
    for label, name in enumerate(["ant", "bee"]):
        (tmp_path / name / "deep").mkdir(parents=True)
        for index in range(2):
            Image.fromarray(arrays[2 * label + index]).save(tmp_path / name / ["b.PNG", "deep/a.bmp"][index])
    (tmp_path / "bee" / "notes.txt").write_text("not a picture")
    (tmp_path / "bee" / ".hidden.png").write_text("not a picture")
    source = data.load(f"folder:{tmp_path}", batch=3)
    assert source.classes == ("ant", "bee")
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(np.concatenate([pixels(inputs) for inputs, _ in source]), arrays[:4])
    assert np.array_equal(pixels(source.take([3, 0])[0]), arrays[[3, 0]])
    Image.fromarray(arrays[0]).save(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"both in .* itself and in subfolders"):
        data.load(f"folder:{tmp_path}")


def test_folder_without_classes(tmp_path: Path, arrays: np.ndarray):
    Image.fromarray(arrays[0]).save(tmp_path / "b.png")
    Image.fromarray(arrays[1]).save(tmp_path / "a.png")
    source = data.load(f"folder:{tmp_path}")
    assert (source.classes, source.labels.tolist()) == (None, [-1, -1])
    assert np.array_equal(pixels(source.take([0, 1])[0]), arrays[[1, 0]])
    (tmp_path / "a.png").write_bytes(b"junk")
    (tmp_path / "b.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"^folder:.*: b.png: not a readable picture"):
        data.load(f"folder:{tmp_path}")


def test_folder_with_nothing(tmp_path: Path):
    with pytest.raises(DataError, match="no pictures"):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="there is no folder"):
        data.load(f"folder:{tmp_path}/none")


def test_sizes_that_differ_are_made_equal_by_a_modifier(tmp_path: Path):
    light = np.random.default_rng(0).integers(100, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(light).save(tmp_path / "a.png")
    Image.fromarray(np.tile(light, (2, 1, 1))[:, :, 0]).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b.png: 12x6 pixels, the first one 6x6: give all one size with  \+6x6"):
        list(data.load(f"folder:{tmp_path}"))
    ((inputs, _),) = data.load(f"folder:{tmp_path}+6x6")
    assert inputs.shape == (2, 3, 6, 6)
    assert np.array_equal(pixels(inputs[:1])[0], light)
    ((grey, _),) = data.load(f"folder:{tmp_path}+grey+3x2")
    assert grey.shape == (2, 1, 3, 2)


@pytest.mark.parametrize("layout", ["hw", "hwc", "chw"])
@pytest.mark.parametrize("kind", [np.uint8, np.float64, np.float32, np.float16])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_layouts_agree(tmp_path: Path, arrays: np.ndarray, layout: str, kind: type, save: Callable[..., None]):
    expected = arrays if layout != "hw" else arrays[:, :, :, :1]
    stored = {"hw": arrays[:, :, :, 0], "hwc": arrays, "chw": arrays.transpose(0, 3, 1, 2)}[layout]
    stored = stored if kind == np.uint8 else (stored / 255).astype(kind)
    save(tmp_path / "a.npz", x=stored, y=np.arange(23, dtype=np.int32))
    source = data.load(f"npz:{tmp_path}/a.npz")
    assert source.labels.tolist() == list(range(23))
    ((inputs, _),) = source
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous()
    assert np.array_equal(pixels(inputs), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.full((2, 4, 4), np.nan)}, "must be numbers in"),
        ({"images": np.full((2, 4, 4), 7.0)}, "must be numbers in"),
        ({"images": np.zeros((0, 4, 4))}, "no pictures"),
        ({"images": np.zeros((2, 4, 4), np.int64)}, "got int64"),
        ({"images": np.zeros((2, 4))}, r"got \(2, 4\)"),
        ({"images": np.zeros((2, 3, 4, 3))}, "both axis 1 and axis 3"),
        ({"images": np.zeros((2, 4, 4, 4))}, "neither axis 1 nor axis 3"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.zeros(3, np.int64)}, "2 pictures but 3 labels"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.zeros(2)}, r"whole numbers .*labels\.astype\(int\)"),
        (
            {"images": np.zeros((2, 4, 4)), "labels": np.array([1, 7.5])},
            "7.5 is no whole number, so no class",
        ),
        ({"images": np.zeros((2, 4, 4)), "labels": np.array(["a", "b"])}, r"whole numbers .*np\.unique\(labels"),
        ({"pictures": np.zeros((2, 4, 4))}, r"only \['pictures'\]"),
        ({"images": np.array([{"a": 1}])}, "pickled ones are refused"),
    ],
)
def test_npz_of_another_kind(tmp_path: Path, content: dict, message: str):
    np.savez(tmp_path / "a.npz", **content)
    with shapes_unchecked(), pytest.raises(DataError, match=rf"^npz:.*{message}"):
        data.load(f"npz:{tmp_path}/a.npz")


def test_broken_npz(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", images=np.random.default_rng(0).random((9, 9, 9)))
    whole = (tmp_path / "a.npz").read_bytes()
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).random((9, 9, 9)).astype(np.float32))
    plain = (tmp_path / "a.npz").read_bytes()
    for broken in (
        whole[:-40], whole[:200] + bytes(200) + whole[400:], b"", b"junk", plain[:-40],
        plain[:600] + bytes([plain[600] ^ 1]) + plain[601:],
    ):  # fmt: skip
        (tmp_path / "b.npz").write_bytes(broken)
        with pytest.raises(DataError, match=r"^npz:.*not a whole npz archive"):
            data.load(f"npz:{tmp_path}/b.npz")
    np.save(tmp_path / "c.npy", np.zeros(3))
    for missing, message in (("none.npz", "No such file"), ("c.npy", "not a whole npz")):
        with pytest.raises(DataError, match=message):
            data.load(f"npz:{tmp_path}/{missing}")


def test_an_npz_that_is_not_compressed_may_be_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It stays in the file, so the limit to what an archive may unpack to is none to it."""
    monkeypatch.setattr(tensors, "MOST_UNPACKED", 1000)
    rng = np.random.default_rng(0)
    images, rows = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8), rng.random((40, 30)).astype(np.float32)
    for number, (array, kind) in enumerate(((images, "pictures"), (np.asfortranarray(rows), "rows"))):
        path = tmp_path / f"{number}.npz"
        np.savez(path, x=array, y=np.arange(40))
        before = path.read_bytes()
        found = data.read(f"npz:{path}")
        inputs, labels = found.take([39, 3])
        assert labels.tolist() == [39, 3]
        wanted = array[[39, 3]] if kind == "rows" else array[[39, 3], None] / np.float32(255)
        assert np.array_equal(inputs.numpy(), wanted)
        inputs.zero_()
        assert path.read_bytes() == before
        np.savez_compressed(path, x=array)
        with pytest.raises(DataError, match="at most 1000 are read"):
            data.read(f"npz:{path}")


def test_idx(tmp_path: Path, arrays: np.ndarray):
    images = struct.pack(">4I", 0x0803, 23, 6, 5) + arrays[:, :, :, 0].tobytes()
    labels = struct.pack(">2I", 0x0801, 23) + bytes(range(23))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    source = open_idx(tmp_path, "test", name="x", classes=("a",))
    assert source.labels.tolist() == list(range(23))
    assert np.array_equal(pixels(next(iter(source))[0]), arrays[:, :, :, :1])
    with pytest.raises(DataError, match=r"cannot read .*train-images"):
        open_idx(tmp_path, "train", name="x", classes=("a",))
    for broken in (gzip.compress(images[:-1]), gzip.compress(images)[:-9], gzip.compress(labels), b"x"):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(broken)
        with pytest.raises(DataError, match=r"^x: "):
            open_idx(tmp_path, "test", name="x", classes=("a",))
