"""Parquet files of encoded pictures, as the Hugging Face hub keeps them; streamed."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from caveat.data.encoded import from_encoded
from caveat.data.pictures import Form
from caveat.data.source import Indices, Source
from caveat.errors import DataError
from caveat.files import parse_json
from caveat.types import Labels

__all__ = ["IMAGE_COLUMNS", "LABEL_COLUMNS", "class_names", "columns", "find", "open_parquet"]

IMAGE_COLUMNS = ("image", "img", "png", "jpg")
LABEL_COLUMNS = ("label", "fine_label", "labels")

_ROWS = 256
"""Rows of encoded pictures that are held at a time."""


def find(where: str, *, name: str) -> list[Path]:
    """The files that `where` means: a file, a folder of `*.parquet`, or a pattern.

    Raises
    ------
    DataError
        If there are none, or a folder holds several splits (`train-...`, `test-...`) that nobody chose between.
    """
    path = Path(where)
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet")) if path.is_dir() else sorted(map(Path, glob.glob(where, recursive=True)))
    if not files:
        raise DataError(f"{name}: no Parquet file at {where}")
    splits = sorted({file.name.split("-")[0] for file in files if "-of-" in file.name})
    if path.is_dir() and len(splits) > 1:
        raise DataError(
            f"{name}: the folder holds several splits ({', '.join(splits)}); choose with parquet:{where}/{splits[0]}-*"
        )
    return files


def columns(file: Path, *, name: str) -> list[str]:
    """The names of a file's columns.

    Raises
    ------
    DataError
        If it is no whole Parquet file.
    """
    return _open(file, name).schema_arrow.names


def open_parquet(files: list[Path], *, name: str, batch: int = 256, form: Form | None = None) -> Source:
    """A set of PNG, JPEG, WebP or BMP pictures in Parquet files, one after the other.

    The pictures are in a column `image`, `img`, `png` or `jpg`, of bytes or of `{bytes, path}`; the labels, if any, in
    `label`, `fine_label` or `labels`. Class names come from the `huggingface` metadata of the schema. Only the labels
    are kept; the pictures are decoded batch by batch.

    Raises
    ------
    DataError
        If a file is not Parquet or is cut off, there are no pictures or two columns of one name, or a picture is broken
        (then: when it is read).
    """
    groups = [(file, group) for file in files for group in range(_open(file, name).num_row_groups)]
    schema = _open(files[0], name).schema_arrow
    column = _image_column(schema, name)
    label = _label_column(schema, name)
    for file in files[1:]:
        _check_alike(schema, _open(file, name).schema_arrow, name, files[0].name, file.name)
    starts = np.cumsum([0, *(_open(file, name).metadata.row_group(group).num_rows for file, group in groups)])
    if starts[-1] == 0:
        raise DataError(f"{name}: no pictures: the file is empty")

    def fetch(chunks: Iterable[Indices]) -> Iterator[tuple[list[int], list[bytes]]]:
        cursor = _Cursor(groups, starts, column, name)
        for chunk in chunks:
            indices: list[int] = chunk.tolist()
            found = {index: cursor.at(index) for index in sorted(indices)}
            yield indices, [found[index] for index in indices]

    labels = _labels(files, label, name) if label else torch.full((int(starts[-1]),), -1)
    return from_encoded(
        fetch,
        labels,
        name=name,
        classes=class_names(schema, label),
        batch=batch,
        form=form or Form(),
        place=lambda index: f"picture {index}",
    )


class _Cursor:
    """The encoded pictures of a set; going forward is cheap, going back reads a row group anew."""

    def __init__(self, groups: list[tuple[Path, int]], starts: np.ndarray, column: str, name: str) -> None:
        self._groups, self._starts, self._column, self._name = groups, starts, column, name
        self._group = -1
        self._first = 0
        self._rows: list[bytes] = []
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def at(self, index: int) -> bytes:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        if group != self._group or index < self._first:
            file, number = self._groups[group]
            self._batches = _open(file, self._name).iter_batches(_ROWS, row_groups=[number], columns=[self._column])
            self._group, self._first, self._rows = group, int(self._starts[group]), []
        while index >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = self._next_rows()
        return self._rows[index - self._first]

    def _next_rows(self) -> list[bytes]:
        try:
            array = next(self._batches).column(0)
        except (OSError, pa.ArrowException, StopIteration) as error:
            raise DataError(f"{self._name}: the Parquet file is broken ({_line(error)})") from None
        pictures = array.field("bytes") if pa.types.is_struct(array.type) else array
        if not (pa.types.is_binary(pictures.type) or pa.types.is_large_binary(pictures.type)):
            raise DataError(f"{self._name}: column {self._column!r} must hold bytes, it holds {pictures.type}")
        if pictures.null_count:
            raise DataError(f"{self._name}: column {self._column!r} has rows without the picture's bytes")
        return pictures.to_pylist()


def _open(file: Path, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: {file.name} is not a whole Parquet file ({_line(error)})") from None


def _image_column(schema: pa.Schema, name: str) -> str:
    for column in IMAGE_COLUMNS:
        if not _once(schema, column, name):
            continue
        kind: Any = schema.field(column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return column
    raise DataError(f"{name}: no column {' or '.join(IMAGE_COLUMNS)} of encoded pictures; there are {schema.names}")


def _label_column(schema: pa.Schema, name: str) -> str | None:
    return next((wanted for wanted in LABEL_COLUMNS if _once(schema, wanted, name)), None)


def _once(schema: pa.Schema, column: str, name: str) -> bool:
    """Whether there is such a column; refuse two of one name."""
    if schema.names.count(column) > 1:
        raise DataError(f"{name}: there are {schema.names.count(column)} columns {column!r}: which is meant?")
    return column in schema.names


def _check_alike(first: pa.Schema, other: pa.Schema, name: str, first_file: str, file: str) -> None:
    """Refuse a later file whose pictures, labels or classes are not those of the first.

    A column of texts would be taken for paths of this machine, other class names would shift the labels.
    """
    label = _label_column(first, name)
    facts = {
        "the columns of pictures": (_image_column(first, name), _image_column(other, f"{name}: {file}")),
        "the columns of labels": (label, _label_column(other, f"{name}: {file}")),
        "the class names": (class_names(first, label), class_names(other, label)),
    }
    for fact, (expected, came) in facts.items():
        if expected != came:
            raise DataError(f"{name}: {fact} differ: {expected} in {first_file}, {came} in {file}")


def _labels(files: list[Path], column: str, name: str) -> Labels:
    try:
        arrays = [pq.ParquetFile(file).read(columns=[column]).column(0) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: the Parquet file is broken ({_line(error)})") from None
    for array in arrays:
        if not pa.types.is_integer(array.type) or array.null_count:
            raise DataError(f"{name}: column {column!r} must hold whole numbers in every row, it is {array.type}")
    try:
        return torch.from_numpy(np.concatenate([array.cast(pa.int64()).to_numpy() for array in arrays]))
    except pa.ArrowInvalid as error:
        raise DataError(f"{name}: column {column!r} holds a label that is no class number ({_line(error)})") from None


def class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Class names as the hub's `datasets` library writes them; what does not look like that is passed over."""
    try:
        text = (schema.metadata or {})[b"huggingface"]
        features = parse_json(text, name="parquet", where="its header")["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, DataError):
        return None


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else "it ends too early"
