"""Rows of numbers from files: CSV, Parquet, npz and the UCI regression sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from caveat.batches import NO_LABEL
from caveat.data.numbers import Numbers
from caveat.data.parquet import class_names
from caveat.data.tabular import open_uci
from caveat.data.text_files import no_csv
from caveat.errors import DataError, OptionError

__all__ = [
    "LABEL_COLUMNS",
    "from_arrays",
    "input_columns",
    "label_columns",
    "no_rows",
    "numbers_of",
    "open_csv",
    "open_parquet",
    "open_uci_part",
    "several",
    "several_of",
    "targets",
]

LABEL_COLUMNS = ("label", "labels", "target", "y")
"""The column of labels unless another is named; the first that is there."""


def open_csv(
    path: Path,
    *,
    name: str,
    batch: int = 256,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    gaps: bool = False,
) -> Numbers:
    """A CSV file in UTF-8, with a line of column names, of which one may be the label and the others are numbers.

    Parameters
    ----------
    label
        The column of labels; by default the first of `label`, `labels`, `target` and `y` that is there. Whole numbers
        and names are classes (names are sorted), other numbers are real. `a,b,c` are several columns of 0 and 1.
    columns
        The inputs, in this order; by default all others.
    gaps
        Whether a number or label that is missing is NaN, and no error.

    Raises
    ------
    DataError
        If there is no such file, column or row, a value is missing, or a column of the inputs holds no numbers.
    """
    try:
        table = pyarrow.csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise no_csv(path, error, name) from None
    return _made(table, name=name, batch=batch, label=label, columns=columns, classes=None, gaps=gaps)


def open_parquet(
    files: list[Path],
    *,
    name: str,
    batch: int = 256,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    gaps: bool = False,
) -> Numbers:
    """Parquet files of the same columns; see `open_csv`."""
    try:
        schema = pq.read_schema(files[0])
        chosen = label_columns(schema.names, label, name)
        wanted = None if columns is None else [*columns, *chosen]
        table = pa.concat_tables([pq.read_table(file, columns=wanted) for file in files])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: not whole Parquet files of the same columns ({str(error).splitlines()[0]})") from None
    classes = class_names(schema, chosen[0]) if len(chosen) == 1 else None
    return _made(table, name=name, batch=batch, label=label, columns=columns, classes=classes, gaps=gaps)


def open_uci_part(where: str, *, name: str, batch: int = 256) -> Numbers:
    """A UCI regression set of `data.tabular`: `NAME:train` or `NAME:test`, of split 0, or `NAME:test:3` of split 3.

    Raises
    ------
    OptionError
        If there is no such set, part or split.
    DataError
        If it is not on this machine.
    """
    known, _, rest = where.partition(":")
    part, _, number = (rest or "train").partition(":")
    if part not in ("train", "test") or not (number or "0").isdecimal():
        raise OptionError(f"{name}: expected uci:NAME:train or uci:NAME:test, with :SPLIT from 0 on, got {where!r}")
    table = open_uci(known)
    row = int(number or "0")
    if row >= len(table.tests):
        raise OptionError(f"{name}: expected a split from 0 to {len(table.tests) - 1}, got {row}")
    test = torch.zeros(len(table.labels), dtype=torch.bool)
    test[table.tests[row]] = True
    rows = test if part == "test" else ~test
    names = tuple(f"x{column}" for column in range(table.inputs.shape[1]))
    return Numbers(name, table.inputs[rows].float(), table.labels[rows].double(), None, names, batch)


def from_arrays(
    inputs: np.ndarray, labels: np.ndarray | None, *, name: str, batch: int = 256, gaps: bool = False
) -> Numbers:
    """Arrays `(n, d)` and `(n,)`; or `(n, c)`, 0 and 1 for each of c labels.

    Raises
    ------
    DataError
        If they are of different length, hold NaN (unless `gaps`), or are no numbers.
    """
    if inputs.dtype.kind not in "biuf" or (labels is not None and labels.dtype.kind not in "biuf"):
        raise DataError(f"{name}: expected arrays of numbers, got {inputs.dtype}")
    if not len(inputs) or (
        labels is not None and (labels.shape[1:] == (1,) or labels.ndim not in (1, 2) or len(labels) != len(inputs))
    ):
        shape = None if labels is None else labels.shape
        raise DataError(f"{name}: expected a label for each of at least one row, got {inputs.shape} and {shape}")
    if labels is not None and labels.ndim == 2:
        whole = several(torch.from_numpy(labels), None, name)
    else:
        whole = torch.full((len(inputs),), NO_LABEL) if labels is None else _labels(torch.from_numpy(labels))
    values = torch.from_numpy(inputs.astype(np.float32, copy=False))
    values = values if gaps else _finite(values, None, name)
    return Numbers(name, values, whole, None, None, batch, labelled=labels is not None)


def _labels(labels: Tensor) -> Tensor:
    return labels.double() if labels.is_floating_point() else labels.long()


def several(labels: Tensor, titles: Sequence[str] | None, name: str, start: int = 0) -> Int64[Tensor, "n c"]:
    """Several labels of each sample as 0 and 1; the first row is row `start` of the set.

    Raises
    ------
    DataError
        If one is another number.
    """
    bad = (~((labels == 0) | (labels == 1))).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{name}: expected 0 or 1 for each of several labels, got {labels[row, column].item():g} in column "
            f"{repr(titles[column]) if titles else column}, row {start + row}; leave out rows of which a label is "
            "missing"
        )
    return labels.long()


def several_of(table: pa.Table, titles: Sequence[str], name: str, start: int = 0) -> Int64[Tensor, "n c"]:
    """The same from the columns of a table whose first row is row `start` of the set.

    Raises
    ------
    DataError
        As `several`, and if one is missing.
    """
    columns = [numbers_of(table.column(title), title, name, start=start) for title in titles]
    return several(torch.stack(columns, dim=1), titles, name, start)


def label_columns(names: Sequence[str], label: str | None, name: str) -> list[str]:
    """The columns of labels: those that are named, else the first of the usual names that is there.

    Raises
    ------
    DataError
        If one is missing or there twice.
    """
    for column in names:
        if list(names).count(column) > 1:
            raise DataError(f"{name}: there are {list(names).count(column)} columns {column!r}: which is meant?")
    if label is None:
        return [column for column in LABEL_COLUMNS if column in names][:1]
    chosen = [label] if label in names else label.split(",")
    for column in chosen:
        if column not in names or chosen.count(column) > 1:
            what = f"there is no column {column!r} for the label" if column not in names else f"{column!r} twice"
            raise DataError(f"{name}: {what}; there are {', '.join(map(repr, names))}")
    return chosen


def input_columns(names: Sequence[str], labels: Sequence[str], columns: Sequence[str] | None, name: str) -> list[str]:
    """The columns of inputs: all but the labels, unless they are named.

    Raises
    ------
    DataError
        If there is none, one is missing, or one is the label.
    """
    inputs = [column for column in names if column not in labels] if columns is None else list(columns)
    missing = [column for column in inputs if column not in names]
    if missing or not inputs:
        what = f"no column {missing[0]!r}" if missing else "no column of inputs"
        raise DataError(f"{name}: {what}; there are {', '.join(map(repr, names))}")
    if both := [column for column in labels if column in inputs]:
        raise DataError(f"{name}: the column {both[0]!r} is the label; leave it out of +columns")
    return inputs


def no_rows(names: Sequence[str], name: str) -> DataError:
    """What is said of a table without rows."""
    return DataError(f"{name}: no rows; there are {', '.join(map(repr, names))}")


def _made(
    table: pa.Table,
    *,
    name: str,
    batch: int,
    label: str | None,
    columns: Sequence[str] | None,
    classes: tuple[str, ...] | None,
    gaps: bool,
) -> Numbers:
    chosen = label_columns(table.column_names, label, name)
    inputs = input_columns(table.column_names, chosen, columns, name)
    if not table.num_rows:
        raise no_rows(table.column_names, name)
    values = torch.stack([numbers_of(table.column(column), column, name, gaps) for column in inputs], dim=1)
    if len(chosen) > 1:
        found, names, known = several_of(table, chosen, name), tuple(chosen), True
    else:
        title = chosen[0] if chosen else None
        column = None if title is None else table.column(title)
        found, names = targets(column, table.num_rows, title, name, classes, gaps)
        known = bool((found != NO_LABEL).any())
    values = values if gaps else _finite(values, inputs, name)
    return Numbers(name, values, found, names, tuple(inputs), batch, labelled=known)


def numbers_of(column: pa.ChunkedArray, title: str, name: str, gaps: bool = False, start: int = 0) -> Tensor:
    """A column as float32, whose first row is row `start` of the set; with `gaps` NaN where a number is missing.

    Raises
    ------
    DataError
        If it holds no numbers, or lacks one.
    """
    if gaps and pa.types.is_null(column.type):
        return torch.full((len(column),), torch.nan)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise DataError(
            f"{name}: the column {title!r} holds {column.type}, not numbers; encode it, or name the columns that are "
            "inputs with +columns= and the label with +label="
            + ("; is the separator a semicolon? expected commas" if ";" in title else "")
        )
    if column.null_count and not gaps:
        row = column.to_pylist().index(None)
        raise DataError(f"{name}: row {start + row} lacks a number in column {title!r}; fill it in, or leave it out")
    return torch.from_numpy(column.cast(pa.float64()).to_numpy().copy()).float()


def _finite(values: Tensor, titles: Sequence[str] | None, name: str) -> Tensor:
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{name}: expected finite numbers (in float32), got {float(values[row, column])} in column "
            f"{repr(titles[column]) if titles else column}, row {row}"
        )
    return values


def targets(
    column: pa.ChunkedArray | None,
    count: int,
    title: str | None,
    name: str,
    classes: tuple[str, ...] | None,
    gaps: bool,
) -> tuple[Tensor, tuple[str, ...] | None]:
    """The labels of `count` rows, and the names of their classes if they have names.

    Raises
    ------
    DataError
        If they are neither numbers nor names, or one is missing (unless `gaps`).
    """
    if column is None:
        return torch.full((count,), NO_LABEL), None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts: list[str | None] = column.to_pylist()
        found = tuple(sorted({text for text in texts if text}))
        number = {each: position for position, each in enumerate(found)}
        return torch.tensor([number.get(text or "", NO_LABEL) for text in texts]), found
    if column.null_count == count:
        return torch.full((count,), NO_LABEL), None
    whole = pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    if not whole and not pa.types.is_floating(column.type):
        raise DataError(f"{name}: the labels in column {title!r} must be numbers or names, they are {column.type}")
    values = torch.from_numpy(column.cast(pa.float64()).to_numpy().copy())  # NaN where one is missing
    if bool(torch.isnan(values).any()):
        if gaps:
            return values, classes
        row = int(torch.isnan(values).nonzero()[0])
        raise DataError(f"{name}: the label is missing in row {row} (column {title!r}); leave the row out")
    return (values.long(), classes) if whole else (values, None)
