"""Texts from files: CLINC150, CSV, Parquet, lines of JSON."""

import re
from collections.abc import Iterator, Sequence
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
from caveat.files import parse_json, read_json, reason
from caveat.types import Labels

__all__ = [
    "LABEL_COLUMNS",
    "TEXT",
    "broken",
    "check_columns",
    "check_labels",
    "csv_kinds",
    "from_hub",
    "header",
    "json_batches",
    "label_column",
    "no_csv",
    "no_text",
    "numbers_of",
    "open_clinc150",
    "open_csv",
    "open_jsonl",
    "open_parquet",
    "remarks",
    "tensor_of",
]

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
        check_columns(columns, name)
        kinds, lines = csv_kinds(None)
        table = pyarrow.csv.read_csv(path, convert_options=kinds, parse_options=lines)
    except (OSError, pa.ArrowException) as error:
        raise no_csv(path, error, name) from None
    return _written(table, name, batch)


def csv_kinds(only: list[str] | None) -> tuple[pyarrow.csv.ConvertOptions, pyarrow.csv.ParseOptions]:
    """How a CSV file of texts is read: as it is written; the columns `only`, or all."""
    kinds = dict.fromkeys([TEXT, *LABEL_COLUMNS], pa.string())
    return (
        pyarrow.csv.ConvertOptions(column_types=kinds, include_columns=only or []),
        pyarrow.csv.ParseOptions(newlines_in_values=True),
    )


def open_jsonl(path: Path, *, name: str, batch: int = 256) -> Texts:
    """Lines of JSON in UTF-8, each an object with `text`, and perhaps `label`, `labels` or `intent`; see `open_csv`.

    Raises
    ------
    DataError
        If there is no such file, or a line is no such object.
    """
    rows = [_batch([]), *json_batches(path, name=name)]  # the first for a file without lines
    return _written(pa.Table.from_batches(rows), name, batch)


def json_batches(path: Path, *, name: str, rows: int = 4096) -> Iterator[pa.RecordBatch]:
    """The texts of a file of lines of JSON, and their labels as they are written."""
    held: list[tuple[str, str | None]] = []
    column: str | None = None
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if not line.strip():
                    continue
                found = parse_json(line, name=name, where=f"line {number + 1} of {path}")
                if not isinstance(found, dict) or not isinstance(found.get(TEXT), str):
                    raise DataError(f"{name}: line {number + 1} of {path}: expected an object with a text under 'text'")
                column = column or label_column(list(found))
                label = None if column is None else found.get(column)
                if isinstance(label, bool) or not isinstance(label, str | int | None):
                    raise DataError(
                        f"{name}: line {number + 1} of {path}: expected a whole number or a name under {column!r}, got "
                        f"{label!r}"
                    )
                held.append((found[TEXT], None if label is None else str(label)))
                if len(held) == rows:
                    yield _batch(held)
                    held.clear()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: cannot read {path} ({reason(error)})") from None
    if held:
        yield _batch(held)


def _batch(held: list[tuple[str, str | None]]) -> pa.RecordBatch:
    """Rows with both columns, so that all batches are alike; a label that is none is null."""
    texts, labels = [text for text, _ in held], [label for _, label in held]
    columns = {TEXT: pa.array(texts, pa.string()), LABEL_COLUMNS[0]: pa.array(labels, pa.string())}
    return pa.RecordBatch.from_pydict(columns)


def _written(table: pa.Table, name: str, batch: int) -> Texts:
    """Texts whose labels are as they are written."""
    column = label_column(table.column_names)
    labels = None if column is None else table.column(column).to_pylist()
    return _made(table.column(TEXT).to_pylist(), labels, None, name=name, batch=batch, written=True)


def no_csv(path: Path, error: Exception, name: str) -> DataError:
    """What is said of a CSV file that cannot be read, or of which a column holds something else further down."""
    told = str(error).splitlines()[0]
    if isinstance(error, OSError):
        return DataError(f"{name}: cannot read {path} ({error.strerror or error})")
    if "conversion error to double" in told:
        return DataError(f"{name}: not every row of {path} holds what the first ones do ({told})")
    return DataError(f"{name}: {path} is no CSV file in UTF-8 ({told})")


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
    except (OSError, pa.ArrowException) as error:
        raise no_csv(path, error, name) from None


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
        check_columns(schema.names, name)
        column = label_column(schema.names)
        table = pa.concat_tables([pq.read_table(file, columns=[TEXT, *([column] if column else [])]) for file in files])
    except (OSError, pa.ArrowException) as error:
        raise broken(name, error) from None
    texts = table.column(TEXT).to_pylist()
    labels = None if column is None else table.column(column).to_pylist()
    if column is None:
        return _made(texts, None, None, name=name, batch=batch)
    check_labels(table.column(column).type, column, name)
    return _made(texts, labels, class_names(schema, column), name=name, batch=batch)


def check_labels(kind: pa.DataType, column: str, name: str) -> None:
    """Refuse labels that are neither whole numbers nor names.

    Raises
    ------
    DataError
        If they are something else.
    """
    known = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    if not any(is_one(kind) for is_one in known):
        raise DataError(f"{name}: column {column!r} must hold whole numbers or names, it holds {kind}")


def broken(name: str, error: Exception) -> DataError:
    """What is said of Parquet files that cannot be read together."""
    return DataError(f"{name}: not whole Parquet files of the same columns ({str(error).splitlines()[0]})")


def from_hub(table: Any, *, name: str, batch: int = 256) -> Texts:
    """A table of the Hugging Face hub with a column `text`, and perhaps labels: whole numbers with names, or names.

    Raises
    ------
    DataError
        If a text is missing, or labels are neither numbers nor names.
    """
    column = label_column(list(table.features))
    texts: list[object] = list(table[TEXT])
    labels: list[Any] | None = None if column is None else list(table[column])
    names: Any = None if column is None else getattr(table.features[column], "names", None)
    return _made(texts, labels, tuple(map(str, names)) if names else None, name=name, batch=batch)


def check_columns(names: Sequence[str], name: str) -> None:
    """Refuse a table without a column of texts, or with two columns of one name.

    Raises
    ------
    DataError
        If it is one.
    """
    if TEXT not in names:
        raise DataError(f"{name}: no column {TEXT!r}; there are {', '.join(map(repr, names))}")
    for column in (TEXT, *LABEL_COLUMNS):
        if names.count(column) > 1:
            raise DataError(f"{name}: there are {names.count(column)} columns {column!r}: which is meant?")


def label_column(names: Sequence[str]) -> str | None:
    """The column of labels, if there is one."""
    return next((column for column in LABEL_COLUMNS if column in names), None)


def _made(
    texts: Sequence[object],
    labels: Sequence[Any] | None,
    classes: tuple[str, ...] | None,
    *,
    name: str,
    batch: int,
    written: bool = False,
) -> Texts:
    numbers: Sequence[int | None] = [None] * len(texts)
    if labels is not None:
        numbers, classes = numbers_of(labels, classes, name=name, written=written)
    bad = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise no_text(bad, texts[bad], name)
    notes = remarks(sum(not str(text).strip() for text in texts), len(texts), name)
    return Texts(name, tuple(map(str, texts)), tensor_of(numbers, name), classes, batch, notes)


def numbers_of(
    labels: Sequence[Any], classes: tuple[str, ...] | None, *, name: str, written: bool = False
) -> tuple[Sequence[int | None], tuple[str, ...] | None]:
    """The class numbers of labels, and the names of the classes; an empty label is none.

    Whole numbers are as they are; of names, without `classes`, those that occur, sorted. `written` ones are all texts:
    numbers, if all of them are.

    Raises
    ------
    DataError
        If they are neither, or a name is none of the classes.
    """
    if not all(label is None or isinstance(label, str) for label in labels):
        if any(label is not None and not isinstance(label, int) for label in labels):
            raise DataError(f"{name}: its labels must be whole numbers or names")
        return labels, classes
    if written and all(NUMBER.fullmatch(label) for label in labels if label):
        return [int(label) if label else None for label in labels], None
    known = classes or tuple(sorted({label for label in labels if label}))
    number = {each: position for position, each in enumerate(known)}
    foreign = sorted({label for label in labels if label and label not in number} - {OUT_OF_SCOPE})
    if foreign:
        raise DataError(f"{name}: a label is {foreign[0]!r}, which is none of the {len(known)} classes")
    return [number.get(label or "") for label in labels], known


def tensor_of(labels: Sequence[int | None], name: str) -> Labels:
    """Class numbers, -1 where there is none.

    Raises
    ------
    DataError
        If one is no class number.
    """
    numbers = [NO_LABEL if label is None else label for label in labels]
    try:
        return torch.tensor(numbers, dtype=torch.int64)
    except (RuntimeError, OverflowError, ValueError):
        raise DataError(f"{name}: a label is {max(numbers)}, which is no class number") from None


def no_text(row: int, found: object, name: str) -> DataError:
    """What is said of a row without a text."""
    return DataError(f"{name}: column {TEXT!r} must hold a text in every row, row {row} holds {found!r}")


def remarks(empty: int, count: int, name: str) -> tuple[str, ...]:
    """What a person should know of so many texts, some of which are empty.

    Raises
    ------
    DataError
        If there are no texts at all.
    """
    if not count:
        raise DataError(f"{name}: no texts: the file is empty")
    return (f"{empty} of the {count} texts of {name} are empty.",) if empty else ()
