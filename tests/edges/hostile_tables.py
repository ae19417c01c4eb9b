"""Archives of arrays, Parquet tables and idx files of other types, shapes, columns and labels than expected."""

import gzip
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.edges.hostile_pictures import drawn, plain
from tests.edges.hostile_sets import CLASSES, REFUSED, Hostile, Right, items, parquet_file, rows


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """The set as bytes `(n, h, w)` and labels."""
    made = [(np.asarray(drawn(shown, number)), label) for label, number, shown in items()]
    return np.stack([image for image, _ in made]), np.array([label for _, label in made])


def _npz(place: Path, *, change: Callable[[np.ndarray, np.ndarray], dict[str, Any]], right: bool = False) -> Right:
    np.savez(place / "set.npz", **change(*arrays()))
    return Right((rows(),)) if right else REFUSED


def _at(array: np.ndarray, value: Any, place: Any = 7) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


def _both(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return arrays


def _floats(x: np.ndarray) -> np.ndarray:
    return (x / 255).astype(np.float32)


IMAGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {
    "bytes": (lambda x: x, True),
    "floats": (_floats, True),
    "doubles": (lambda x: x / 255, True),
    "half": (lambda x: (x / 255).astype(np.float16), True),
    "long doubles": (lambda x: (x / 255).astype(np.longdouble), True),
    "big-endian": (lambda x: (x / 255).astype(">f4"), True),
    "Fortran order": (lambda x: np.asfortranarray(x), True),
    "colour behind": (lambda x: np.repeat(x[..., None], 3, 3), True),
    "colour in front": (lambda x: np.repeat(x[:, None], 3, 1), True),
    "floats to 255": (lambda x: x.astype(np.float32), False),
    "floats around 0": (lambda x: _floats(x) * 2 - 1, False),
    "one NaN": (lambda x: _at(_floats(x), np.nan, (7, 3, 3)), False),
    "one infinite": (lambda x: _at(_floats(x), np.inf, (7, 3, 3)), False),
    "one of 1e30": (lambda x: _at(_floats(x), 1e30, (7, 3, 3)), False),
    "one of 1e300": (lambda x: _at(x / 255, 1e300, (7, 3, 3)), False),
    "one just below 0": (lambda x: _at(_floats(x), -1e-3, (7, 3, 3)), False),
    "whole numbers": (lambda x: x.astype(np.int64), False),
    "signed bytes": (lambda x: x.astype(np.int8), False),
    "booleans": (lambda x: x > 150, False),
    "complex": (lambda x: x.astype(complex), False),
    "texts": (lambda x: x.astype(str), False),
    "objects": (lambda x: x.astype(object), False),
    "dates": (lambda x: x.astype("M8[s]"), False),
    "records": (lambda x: x.astype([("a", np.uint8)]), False),
    "flat": (lambda x: x.reshape(30, -1), False),
    "five axes": (lambda x: x[:, None, None], False),
    "two channels": (lambda x: np.repeat(x[:, None], 2, 1), False),
    "one number": (lambda x: np.array(3), False),
    "no samples": (lambda x: x[:0], False),
    "no rows": (lambda x: x[:, :0], False),
    "one fewer": (lambda x: x[:-1], False),
}
TARGETS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {
    "bytes": (lambda y: y.astype(np.uint8), True),
    "big-endian": (lambda y: y.astype(">i4"), True),
    "one negative": (lambda y: _at(y, -1), False),
    "one of -9": (lambda y: _at(y, -9), False),
    "one too large": (lambda y: _at(y, 3), False),
    "counted from 1": (lambda y: y + 1, False),
    "one of 2^64 - 1": (lambda y: _at(y.astype(np.uint64), 2**64 - 1), False),
    "all of 2^64 - 1": (lambda y: np.full(30, 2**64 - 1, np.uint64), False),
    "2^64 and more": (lambda y: y.astype(np.uint64) + 2**63, False),
    "floats": (lambda y: y.astype(float), False),
    "NaN": (lambda y: _at(y.astype(float), np.nan), False),
    "texts": (lambda y: y.astype(str), False),
    "objects": (lambda y: y.astype(object), False),
    "booleans": (lambda y: y > 0, False),
    "a column": (lambda y: y[:, None], False),
    "one-hot": (lambda y: np.eye(3, dtype=int)[y], False),
    "one more": (lambda y: np.append(y, 0), False),
    "one number": (lambda y: np.array(1), False),
    "none": (lambda y: y[:0], False),
}


def _archive(place: Path, *, change: Callable[[Path], None]) -> Right:
    images, labels = arrays()
    np.savez(place / "set.npz", images=images, labels=labels)
    change(place / "set.npz")
    return REFUSED


def _twice(path: Path) -> None:
    """Two arrays of one name: which is meant?"""
    with zipfile.ZipFile(path) as archive:
        content = archive.read("labels.npy")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.npy", content[:-8] + struct.pack("<q", 0))


def _rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


ARCHIVES: dict[str, Callable[[Path], None]] = {
    "labels twice": _twice,
    "cut": partial(_rewritten, change=lambda data: data[: len(data) // 2]),
    "empty": partial(_rewritten, change=lambda data: b""),
    "a pickle": partial(_rewritten, change=lambda data: b"\x80\x04\x8c\x02os\x8c\x06system\x93."),
    "a text": partial(_rewritten, change=lambda data: b"images, labels\n"),
    "one array": lambda path: (
        np.save(path.with_name("set.npy"), arrays()[0]) or (path.with_name("set.npy").replace(path) and None)
    ),
    "an empty archive": lambda path: zipfile.ZipFile(path, "w").close(),
}


def npz() -> Iterator[Hostile]:
    """Archives of arrays of every type and shape."""
    for name, (change, right) in IMAGES.items():
        make = partial(_npz, change=lambda x, y, change=change: _both(images=change(x), labels=y), right=right)
        yield Hostile(f"npz: images, {name}", make, "npz:set.npz")
    for name, (change, right) in TARGETS.items():
        make = partial(_npz, change=lambda x, y, change=change: _both(images=x, labels=change(y)), right=right)
        yield Hostile(f"npz: labels, {name}", make, "npz:set.npz")
    for name, change in ARCHIVES.items():
        yield Hostile(f"npz: {name}", partial(_archive, change=change), "npz:set.npz")
    yield Hostile("npz: no labels", partial(_npz, change=lambda x, y: _both(images=x)), "npz:set.npz")
    yield Hostile("npz: no images", partial(_npz, change=lambda x, y: _both(labels=y)), "npz:set.npz")
    make = partial(_npz, change=lambda x, y: _both(images=x, x=255 - x, labels=y))
    yield Hostile("npz: images and x", make, "npz:set.npz")
    make = partial(_npz, change=lambda x, y: _both(images=x, y=y, labels=y[::-1]))
    yield Hostile("npz: labels and y", make, "npz:set.npz")
    yield Hostile("npz: trained in other units", _units, "npz:set.npz", ("--train", "npz:train.npz"))


def _units(place: Path) -> Right:
    images, labels = arrays()
    np.savez(place / "train.npz", images=_floats(images) / 255, labels=labels)
    np.savez(place / "set.npz", images=images, labels=labels)
    return REFUSED


def _labelled(kind: Any, *, place: int = 7, value: Any = None) -> pa.Array:
    labels: list[Any] = [label for label, _, _ in items()]
    if value is not ...:
        labels[place] = value
    return pa.array(labels, kind)


STOLEN = {"bytes": None, "path": "/etc/passwd"}
TABLES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "as it should be": (partial(parquet_file, names=list(CLASSES)), True),
    "small labels": (lambda path: parquet_file(path, labels=_labelled(pa.int8(), value=...)), True),
    "plain bytes": (
        lambda path: parquet_file(path, images=pa.array([plain(drawn(s, n)) for _, n, s in items()])),
        True,
    ),
    "no labels": (partial(parquet_file, columns=("image",)), False),
    "no pictures": (partial(parquet_file, columns=("nothing", "label")), False),
    "two columns of labels of one name": (partial(parquet_file, columns=("image", "label", "label")), False),
    "two columns of pictures of one name": (
        lambda path: parquet_file(
            path, labels=pa.array([plain(drawn(s, n)) for _, n, s in items()]), columns=("image", "image")
        ),
        False,
    ),
    "a label without a value": (lambda path: parquet_file(path, labels=_labelled(pa.int64())), False),
    "a negative label": (lambda path: parquet_file(path, labels=_labelled(pa.int64(), value=-1)), False),
    "a label of -2": (lambda path: parquet_file(path, labels=_labelled(pa.int64(), value=-2)), False),
    "a label too large": (lambda path: parquet_file(path, labels=_labelled(pa.int64(), value=3)), False),
    "a label of 2^64 - 1": (lambda path: parquet_file(path, labels=_labelled(pa.uint64(), value=2**64 - 1)), False),
    "labels of floats": (lambda path: parquet_file(path, labels=_labelled(pa.float64(), value=1.0)), False),
    "labels of texts": (
        lambda path: parquet_file(path, labels=pa.array([CLASSES[label] for label, _, _ in items()])),
        False,
    ),
    "labels of a dictionary": (
        lambda path: parquet_file(
            path, labels=pa.array([CLASSES[label] for label, _, _ in items()]).dictionary_encode()
        ),
        False,
    ),
    "labels of lists": (lambda path: parquet_file(path, labels=pa.array([[label] for label, _, _ in items()])), False),
    "labels of booleans": (
        lambda path: parquet_file(path, labels=pa.array([label > 0 for label, _, _ in items()])),
        False,
    ),
    "fewer names": (partial(parquet_file, names=["ant", "bee"]), False),
    "more names": (partial(parquet_file, names=[*CLASSES, "dog"]), True),
    "names twice": (partial(parquet_file, names=["ant", "ant", "cat"]), True),
    "names that are a text": (partial(parquet_file, names="abc"), True),
    "names of every kind": (partial(parquet_file, names=[None, {"a": 1}, 3]), True),
    "names of markup and escapes": (partial(parquet_file, names=["[/]", "\x1b[2J\n", "\u202ex"]), True),
    "a surrogate in a name": (partial(parquet_file, names=["a", "\ud800", "c"]), True),
    "names nested without end": (partial(parquet_file, names=b'{"info":' * 5000), True),
    "a picture without bytes": (lambda path: parquet_file(path, images=[plain(drawn(1, 1))] * 29 + [STOLEN]), False),
    "a picture that is a file of this machine": (lambda path: parquet_file(path, images=[STOLEN] * 30), False),
    "pictures that are paths": (lambda path: parquet_file(path, images=pa.array(["/etc/passwd"] * 30)), False),
    "pictures that are numbers": (lambda path: parquet_file(path, images=pa.array(range(30))), False),
    "no rows": (
        lambda path: parquet_file(path, images=pa.array([], pa.binary()), labels=pa.array([], pa.int64())),
        False,
    ),
    "cut": (lambda path: parquet_file(path) or _rewritten(path, lambda data: data[:-9]), False),
    "cut in front": (lambda path: parquet_file(path) or _rewritten(path, lambda data: data[9:]), False),
    "pages zeroed": (
        lambda path: parquet_file(path) or _rewritten(path, lambda data: data[:4] + bytes(900) + data[904:]),
        False,
    ),
    "empty": (lambda path: path.write_bytes(b"") and None, False),
    "a csv": (lambda path: path.write_bytes(b"image,label\n") and None, False),
}


def parquet() -> Iterator[Hostile]:
    """Tables with other columns, labels and names."""
    for name, (write, right) in TABLES.items():

        def make(place: Path, write: Callable[[Path], None] = write, right: bool = right) -> Right:
            write(place / "set.parquet")
            return Right((rows(),)) if right else REFUSED

        yield Hostile(f"parquet: {name}", make, "parquet:set.parquet")


def idx_files(place: Path, *, change: Callable[[bytes, bytes], tuple[bytes, bytes]], packed: bool = True) -> bool:
    images, labels = arrays()
    first = struct.pack(">4I", 0x0803, *images.shape) + images.tobytes()
    second = struct.pack(">2I", 0x0801, len(labels)) + labels.astype(np.uint8).tobytes()
    (place / "fashion-mnist").mkdir()
    for name, content in zip(("images-idx3", "labels-idx1"), change(first, second), strict=True):
        path = place / "fashion-mnist" / f"t10k-{name}-ubyte.gz"
        path.write_bytes(gzip.compress(content) if packed else content)
    return True


IDX: dict[str, tuple[Callable[[bytes, bytes], tuple[bytes, bytes]], bool, bool]] = {
    "as it should be": (lambda x, y: (x, y), True, True),
    "not packed": (lambda x, y: (x, y), False, False),
    "packed twice": (lambda x, y: (gzip.compress(x), y), True, False),
    "swapped": (lambda x, y: (y, x), True, False),
    "images for labels": (lambda x, y: (x, x), True, False),
    "empty labels": (lambda x, y: (x, b""), True, False),
    "header alone": (lambda x, y: (x[:16], y), True, False),
    "no samples": (lambda x, y: (struct.pack(">4I", 0x0803, 0, 8, 8), struct.pack(">2I", 0x0801, 0)), True, False),
    "cut images": (lambda x, y: (x[:-1], y), True, False),
    "more images": (lambda x, y: (x + b"\0", y), True, False),
    "cut labels": (lambda x, y: (x, y[:-1]), True, False),
    "fewer labels": (lambda x, y: (x, struct.pack(">2I", 0x0801, 29) + y[8:-1]), True, False),
    "a label too large": (lambda x, y: (x, y[:12] + b"\x0a" + y[13:]), True, False),
    "signed bytes": (lambda x, y: (x, struct.pack(">2I", 0x0901, 30) + y[8:]), True, False),
    "little-endian": (lambda x, y: (struct.pack("<4I", 0x0803, 30, 8, 8) + x[16:], y), True, False),
}


def idx() -> Iterator[Hostile]:
    """Files of the original MNIST's format, where the library looks for Fashion-MNIST."""
    for name, (change, packed, right) in IDX.items():

        def make(place: Path, change: Callable[..., Any] = change, packed: bool = packed, right: bool = right) -> Right:
            idx_files(place, change=change, packed=packed)
            return Right((rows(),)) if right else REFUSED

        yield Hostile(f"idx: {name}", make, "fashion-mnist:test", model="corner_nets:corners(classes=10)")
