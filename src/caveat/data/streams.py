"""Files of rows and of texts, opened to be read in pieces: a first pass keeps the labels alone."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from caveat.batches import NO_LABEL, Inputs, given
from caveat.data import number_files, text_files
from caveat.data.parquet import IMAGE_COLUMNS, class_names, find
from caveat.data.pictures import Form
from caveat.data.streamed import Streamed
from caveat.data.text_files import TEXT
from caveat.data.texts import encoding, renumbered
from caveat.types import Encoding

__all__ = ["KINDS"]

ROWS = 8192
"""Rows of a Parquet file that are held at a time."""
BLOCK = 1 << 20
"""Bytes of a CSV file that are held at a time."""
Rows = Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]
"""From columns and a position to the rows from there on, in pieces."""


def open_csv(where: str, name: str, batch: int, form: Form, model: object) -> Streamed:
    """A CSV file."""
    path = Path(where).expanduser()
    names = text_files.header(path, name=name)
    if _of_texts(names, form):
        return _texts(partial(_csv, path, None, name), names, name, batch, model, written=True)
    chosen, inputs = _chosen(names, form, name)
    # what the first rows hold; whole numbers may become others further below, and gaps numbers
    first = pyarrow.csv.open_csv(path, pyarrow.csv.ReadOptions(block_size=BLOCK)).schema
    several = chosen if len(chosen) > 1 else []
    types = {each: _widened(first.field(each).type) for each in [*inputs, *several]}
    _check_numbers(types, name)
    rows = partial(_csv, path, dict.fromkeys(chosen, pa.string()) | types, name)
    # all columns are looked at, so that what is no number is refused before any answer
    return _table(rows, rows([*inputs, *chosen], 0), chosen, inputs, name, batch, written=True)


def open_parquet(where: str, name: str, batch: int, form: Form, model: object) -> Streamed | None:
    """Parquet files; None of pictures."""
    files = find(str(Path(where).expanduser()), name=name)
    try:
        schemas = [pq.read_schema(file) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise text_files.broken(name, error) from None
    schema, names = schemas[0], schemas[0].names
    rows = partial(_parquet, files, name)
    if _of_texts(names, form):
        _check_alike(schemas, [TEXT, *_label(names)], name)
        return None if set(names) & set(IMAGE_COLUMNS) else _texts(rows, names, name, batch, model, schema=schema)
    if set(names) & set(IMAGE_COLUMNS) and form.label is None and form.columns is None:
        return None
    chosen, inputs = _chosen(names, form, name)
    _check_alike(schemas, [*inputs, *chosen], name)
    _check_numbers({each: schema.field(each).type for each in inputs}, name)
    classes = class_names(schema, chosen[0]) if chosen else None
    return _table(rows, rows(chosen or inputs[:1], 0), chosen, inputs, name, batch, classes=classes)


def open_jsonl(where: str, name: str, batch: int, form: Form, model: object) -> Streamed:
    """A file of lines of JSON, which are texts."""
    del form
    rows = partial(_jsonl, Path(where).expanduser(), name)
    return _texts(rows, [TEXT, text_files.LABEL_COLUMNS[0]], name, batch, model, written=True)


KINDS: dict[str, Callable[[str, str, int, Form, object], Streamed | None]] = {
    "csv": open_csv,
    "jsonl": open_jsonl,
    "parquet": open_parquet,
}


def _of_texts(names: Sequence[str], form: Form) -> bool:
    return TEXT in names and form.label is None and form.columns is None


def _label(names: Sequence[str]) -> list[str]:
    """The column of labels of texts, or none."""
    found = text_files.label_column(names)
    return [] if found is None else [found]


def _chosen(names: Sequence[str], form: Form, name: str) -> tuple[list[str], list[str]]:
    """The columns of labels and of inputs of a table."""
    chosen = number_files.label_columns(names, form.label, name)
    return chosen, number_files.input_columns(names, chosen, form.columns, name)


def _widened(kind: pa.DataType) -> pa.DataType:
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return pa.float64() if numbers else kind


def _check_numbers(types: dict[str, pa.DataType], name: str) -> None:
    for title, kind in types.items():
        number_files.numbers_of(pa.chunked_array([], kind), title, name, gaps=True)


def _check_alike(schemas: Sequence[pa.Schema], names: Sequence[str], name: str) -> None:
    first = schemas[0]
    for place, other in enumerate(schemas[1:], start=1):
        for each in names:
            if each not in other.names or other.field(each).type != first.field(each).type:
                raise text_files.broken(name, ValueError(f"column {each!r} of file {place} is another, or missing"))


def _table(
    rows: Rows,
    first: Iterator[pa.RecordBatch],
    labels: Sequence[str],
    inputs: Sequence[str],
    name: str,
    batch: int,
    *,
    classes: tuple[str, ...] | None = None,
    written: bool = False,
) -> Streamed:
    """A set of rows; the pass `first` holds the labels, `written` as texts."""
    if len(labels) > 1:
        several = _several(first, labels, name)
        if not len(several):
            raise number_files.no_rows([*inputs, *labels], name)
        return _read_as_numbers(name, several, tuple(labels), inputs, batch, rows, labelled=True)
    title = labels[0] if labels else None
    count, codes, there = _looked_at(first, title, None, name)
    if not count:
        raise number_files.no_rows([*inputs, *labels], name)
    found, names = torch.full((count,), NO_LABEL), None
    if there is not None:
        column = pa.chunked_array([_typed(there) if written else there])
        each, names = number_files.targets(column, len(there), title, name, classes, gaps=True)
        found = each[codes]
    known = bool((found != NO_LABEL).any())
    return _read_as_numbers(name, found, names, inputs, batch, rows, labelled=known)


def _read_as_numbers(
    name: str,
    labels: Tensor,
    classes: tuple[str, ...] | None,
    inputs: Sequence[str],
    batch: int,
    rows: Rows,
    *,
    labelled: bool,
) -> Streamed:
    def numbers(table: pa.Table) -> Tensor:
        return torch.stack([number_files.numbers_of(table.column(one), one, name, gaps=True) for one in inputs], dim=1)

    return Streamed(name, labels, classes, (len(inputs),), batch, partial(rows, inputs), numbers, labelled=labelled)


def _several(batches: Iterable[pa.RecordBatch], labels: Sequence[str], name: str) -> Tensor:
    """Several labels of each row."""
    count, parts = 0, [torch.empty(0, len(labels), dtype=torch.int64)]
    for batch in batches:
        parts.append(number_files.several_of(pa.Table.from_batches([batch]), labels, name, count))
        count += batch.num_rows
    return torch.cat(parts)


def _texts(
    rows: Rows,
    names: list[str],
    name: str,
    batch: int,
    model: object,
    *,
    schema: pa.Schema | None = None,
    written: bool = False,
) -> Streamed:
    """A set of texts as inputs of `model`."""
    text_files.check_columns(names, name)
    coder, label = encoding(name, model), _label(names)
    classes = None
    if schema is not None and label:
        text_files.check_labels(schema.field(label[0]).type, label[0], name)
        classes = class_names(schema, label[0])
    counted = _Empty(name)
    count, codes, known = _looked_at(rows([TEXT, *label], 0), label[0] if label else None, counted, name)
    notes, labels = text_files.remarks(counted.empty, count, name), torch.full((count,), NO_LABEL)
    if known is not None:
        numbers, classes = text_files.numbers_of(known.to_pylist(), classes, name=name, written=written)
        labels = text_files.tensor_of(numbers, name)[codes]
    made = Streamed(
        name, labels, classes, (), batch, partial(rows, [TEXT]), partial(_encoded, coder, name), text=TEXT, notes=notes
    )
    return renumbered(made, getattr(model, "classes", None))


def _encoded(coder: Encoding, name: str, table: pa.Table) -> Inputs:
    return given(coder.encode(table.column(TEXT).to_pylist()), name)


class _Empty:
    """Looks at texts that pass, and counts those that are empty."""

    def __init__(self, name: str) -> None:
        self.name, self.empty = name, 0

    def __call__(self, texts: Any, start: int) -> None:
        if texts.null_count or not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            row, found = next((row, one) for row, one in enumerate(texts.to_pylist()) if not isinstance(one, str))
            raise text_files.no_text(start + row, found, self.name)
        self.empty += sum(not text.strip() for text in texts.to_pylist())


def _looked_at(
    batches: Iterable[pa.RecordBatch], label: str | None, look: Callable[[Any, int], None] | None, name: str
) -> tuple[int, Tensor, pa.Array | None]:
    """The number of rows, and for each the place of its label among those that occur; `look` is shown the texts."""
    count, parts = 0, list[pa.Array]()
    for batch in batches:
        if look is not None:
            look(batch.column(TEXT), count)
        if label is not None:
            parts.append(batch.column(label).dictionary_encode())
        count += batch.num_rows
    if not parts:
        return count, torch.empty(0, dtype=torch.int64), None
    whole = pa.chunked_array(parts).unify_dictionaries()
    known = whole.chunk(0).dictionary
    codes = [torch.from_numpy(part.indices.fill_null(len(known)).to_numpy().copy()) for part in whole.chunks]
    if whole.null_count:
        known = pa.concat_arrays([known, pa.nulls(1, known.type)])
    return count, torch.cat(codes).long(), known


def _typed(written: pa.Array) -> pa.Array:
    """Labels as a CSV file's column of them would be read: whole numbers, numbers, or names."""
    file = io.BytesIO()
    pyarrow.csv.write_csv(pa.table({"label": written}), file, pyarrow.csv.WriteOptions(quoting_style="all_valid"))
    file.seek(0)
    return pyarrow.csv.read_csv(file).column(0).combine_chunks()


def _skipped(batches: Iterable[pa.RecordBatch], start: int) -> Iterator[pa.RecordBatch]:
    """Without the first rows."""
    for batch in batches:
        if start < batch.num_rows:
            yield batch.slice(start)
        start = max(0, start - batch.num_rows)


def _csv(
    path: Path, types: dict[str, pa.DataType] | None, name: str, columns: Sequence[str], start: int
) -> Iterator[pa.RecordBatch]:
    """Rows of a CSV file; with `types` of a table, else of texts."""
    kinds, lines = text_files.csv_kinds([*columns])
    if types is not None:
        kinds = pyarrow.csv.ConvertOptions(column_types=types, include_columns=[*columns])
        lines = None
    try:
        size = pyarrow.csv.ReadOptions(block_size=BLOCK)
        with pyarrow.csv.open_csv(path, size, lines, kinds) as batches:
            yield from _skipped(batches, start)
    except (OSError, pa.ArrowException) as error:
        raise text_files.no_csv(path, error, name) from None


def _parquet(files: Sequence[Path], name: str, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    """Rows of Parquet files; groups of rows before `start` are not read."""
    try:
        for path in files:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    count = file.metadata.row_group(group).num_rows
                    if start < count:
                        batches = file.iter_batches(ROWS, row_groups=[group], columns=[*columns])
                        yield from _skipped(batches, start)
                    start = max(0, start - count)
    except (OSError, pa.ArrowException) as error:
        raise text_files.broken(name, error) from None


def _jsonl(path: Path, name: str, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
    for batch in _skipped(text_files.json_batches(path, name=name), start):
        yield batch.select([*columns])
