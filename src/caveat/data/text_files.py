"""Texts from files: CLINC150, CSV, Parquet."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from caveat.batches import NO_LABEL
from caveat.data.named import missing, under_root
from caveat.data.parquet import class_names
from caveat.data.texts import Texts
from caveat.errors import DataError
from caveat.files import read_json

__all__ = ["LABEL_COLUMNS", "TEXT", "from_hub", "header", "open_clinc150", "open_csv", "open_parquet"]

TEXT = "text"
"""The column of texts."""
LABEL_COLUMNS = ("label", "labels", "intent")
"""The column of labels; the first that is there."""
NUMBER = re.compile(r"[0-9]+|-1")
"""A label that is a number; -1 is none."""
OUT_OF_SCOPE = "oos"
"""What CLINC150 calls queries of none of its intents."""
MOST = 1 << 30
"""Bytes of a file that is read whole."""


def open_clinc150(split: str, *, name: str, batch: int = 256) -> Texts:
    """CLINC150: queries of 150 intents, and queries of none (Larson et al., EMNLP-IJCNLP 2019).

    Taken from `clinc150/data_full.json` under CAVEAT_DATA. The classes are the intents, sorted; the splits `oos_...`
    hold queries out of scope, with the label -1.

    Raises
    ------
    DataError
        If it is not there, or is another file.
    """
    folder = under_root("clinc150")
    path = folder / "data_full.json" if folder else None
    if path is None or not path.is_file():
        raise missing(name, "clinc150/data_full.json")
    found = read_json(path, name=name, most=MOST)
    try:
        rows = [(str(text), str(intent)) for text, intent in found[split]]
        classes = tuple(sorted({str(intent) for _, intent in found["train"]}))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{name}: {path} holds no lists of [text, intent] by the name of their split") from None
    return _made([text for text, _ in rows], [i for _, i in rows], classes, name=name, batch=batch)


def open_csv(path: Path, *, name: str, batch: int = 256) -> Texts:
    """A CSV file in UTF-8, with a line of column names: `text`, and perhaps `label`, `labels` or `intent`.

    Labels are whole numbers from 0, or names: classes are then the names, sorted. An empty label is none (-1).

    Raises
    ------
    DataError
        If there is no such file, it is no CSV, there is no column of texts, or two of one name.
    """
    columns = header(path, name=name)
    try:
        kinds = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys([TEXT, *LABEL_COLUMNS], pa.string()))
        lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
        _check_columns(columns, name)
        table = pyarrow.csv.read_csv(path, convert_options=kinds, parse_options=lines)
    except OSError as error:
        raise DataError(f"{name}: cannot read {path} ({error.strerror or error})") from None
    except pa.ArrowException as error:
        raise DataError(f"{name}: {path} is no CSV file in UTF-8 ({str(error).splitlines()[0]})") from None
    column = _label_column(columns)
    labels: list[str] | None = None if column is None else table.column(column).to_pylist()
    if labels is not None and all(NUMBER.fullmatch(label) for label in labels if label):
        return _numbered(table.column(TEXT).to_pylist(), [int(i) if i else None for i in labels], name, batch)
    return _made(table.column(TEXT).to_pylist(), labels, None, name=name, batch=batch)


def header(path: Path, *, name: str) -> list[str]:
    """The names of the columns of a CSV file.

    Raises
    ------
    DataError
        If there is no such file, or it is no CSV.
    """
    try:
        with path.open("rb") as file:
            return pyarrow.csv.open_csv(file).schema.names
    except OSError as error:
        raise DataError(f"{name}: cannot read {path} ({error.strerror or error})") from None
    except pa.ArrowException as error:
        raise DataError(f"{name}: {path} is no CSV file in UTF-8 ({str(error).splitlines()[0]})") from None


def open_parquet(files: list[Path], *, name: str, batch: int = 256) -> Texts:
    """Parquet files with a column `text`, and perhaps `label`, `labels` or `intent` of whole numbers or names.

    The names of numbers come from the `huggingface` metadata of the schema.

    Raises
    ------
    DataError
        If a file is no Parquet or unlike the first, a text is missing, or labels are neither numbers nor names.
    """
    try:
        schema = pq.read_schema(files[0])
        _check_columns(schema.names, name)
        column = _label_column(schema.names)
        table = pa.concat_tables([pq.read_table(file, columns=[TEXT, *([column] if column else [])]) for file in files])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: not whole Parquet files of the same columns ({str(error).splitlines()[0]})") from None
    texts = table.column(TEXT).to_pylist()
    labels = None if column is None else table.column(column).to_pylist()
    if labels is not None and pa.types.is_integer(table.column(column).type):
        return _numbered(texts, labels, name, batch, classes=class_names(schema, column))
    if labels is not None and not all(label is None or isinstance(label, str) for label in labels):
        kind = table.column(column).type
        raise DataError(f"{name}: column {column!r} must hold whole numbers or names, it holds {kind}")
    return _made(texts, labels, None, name=name, batch=batch)


def from_hub(table: Any, *, name: str, batch: int = 256) -> Texts:
    """A table of the Hugging Face hub with a column `text`, and perhaps labels: whole numbers with names, or names.

    Raises
    ------
    DataError
        If a text is missing, or labels are neither numbers nor names.
    """
    column = _label_column(list(table.features))
    texts: list[object] = list(table[TEXT])
    labels: list[Any] | None = None if column is None else list(table[column])
    if labels is not None and any(isinstance(label, str) for label in labels):
        return _made(texts, labels, None, name=name, batch=batch)
    if labels is not None and any(label is not None and not isinstance(label, int) for label in labels):
        raise DataError(f"{name}: column {column!r} must hold whole numbers or names")
    names: Any = None if column is None else getattr(table.features[column], "names", None)
    return _numbered(texts, labels, name, batch, classes=tuple(map(str, names)) if names else None)


def _check_columns(names: Sequence[str], name: str) -> None:
    if TEXT not in names:
        raise DataError(f"{name}: no column {TEXT!r}; there are {', '.join(map(repr, names))}")
    for column in (TEXT, *LABEL_COLUMNS):
        if names.count(column) > 1:
            raise DataError(f"{name}: there are {names.count(column)} columns {column!r}: which is meant?")


def _label_column(names: Sequence[str]) -> str | None:
    return next((column for column in LABEL_COLUMNS if column in names), None)


def _made(
    texts: Sequence[object],
    labels: Sequence[str | None] | None,
    classes: tuple[str, ...] | None,
    *,
    name: str,
    batch: int,
) -> Texts:
    """A set whose labels are names; without `classes` they are the names that occur, sorted."""
    if labels is None:
        return _numbered(texts, None, name, batch)
    if classes is None:
        classes = tuple(sorted({label for label in labels if label}))
    number = {each: position for position, each in enumerate(classes)}
    foreign = sorted({label for label in labels if label and label not in number} - {OUT_OF_SCOPE})
    if foreign:
        raise DataError(f"{name}: a label is {foreign[0]!r}, which is none of the {len(classes)} classes")
    return _numbered(texts, [number.get(label or "") for label in labels], name, batch, classes=classes)


def _numbered(
    texts: Sequence[object],
    labels: Sequence[int | None] | None,
    name: str,
    batch: int,
    *,
    classes: tuple[str, ...] | None = None,
) -> Texts:
    if not texts:
        raise DataError(f"{name}: no texts: the file is empty")
    bad = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise DataError(f"{name}: column {TEXT!r} must hold a text in every row, row {bad} holds {texts[bad]!r}")
    empty = sum(not str(text).strip() for text in texts)
    notes = (f"{empty} of the {len(texts)} texts of {name} are empty.",) if empty else ()
    numbers = [NO_LABEL] * len(texts) if labels is None else [NO_LABEL if i is None else i for i in labels]
    try:
        tensor = torch.tensor(numbers, dtype=torch.int64)
    except (RuntimeError, OverflowError, ValueError):
        raise DataError(f"{name}: a label is {max(numbers)}, which is no class number") from None
    return Texts(name, tuple(map(str, texts)), tensor, classes, batch, notes)
