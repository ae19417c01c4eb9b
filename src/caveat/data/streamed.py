"""Tables and texts that are read in pieces, however many rows they have."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa
import torch
from jaxtyping import Shaped
from torch import Tensor

from caveat.batches import Inputs
from caveat.data.source import Indices, split
from caveat.errors import DataError

__all__ = ["Reader", "Streamed"]

Reader: TypeAlias = Callable[[int], Iterator[pa.RecordBatch]]
"""The rows from a position on. One call is one pass over the files."""


@dataclass(frozen=True)
class Streamed:
    """A set of rows or texts in a fixed order, of which labels alone are held, and the rows of a batch."""

    name: str
    """As the caller wrote it; errors begin with it."""
    labels: Shaped[Tensor, "n *c"]
    """As in `Numbers` or `Texts`."""
    classes: tuple[str, ...] | None
    """Names of the labels 0, 1, ..., if known."""
    shape: tuple[int, ...]
    """Of one input; empty of texts, as it varies."""
    batch: int
    read: Reader
    inputs: Callable[[pa.Table], Inputs]
    """From rows to inputs of a network."""
    text: str | None = None
    """The column of texts, of a set of those."""
    notes: tuple[str, ...] = ()
    """What a person should know of the set."""
    generated: bool = False
    labelled: bool = True
    """Of a table, whether there are labels."""
    held: dict[int, str] = field(default_factory=dict[int, str])
    """Of texts, those of the last batch by their position."""

    @property
    def remarks(self) -> list[str]:
        """The notes: nothing is found out in a pass."""
        return list(self.notes)

    def place(self, position: int) -> str:
        """Which row it is, for people; of the texts of the last batch, the text."""
        return f"row {position}" if self.text is None else self.held[position]

    def __len__(self) -> int:
        return len(self.labels)

    def chunks(self, spans: Sequence[range] | None = None) -> Iterator[tuple[Indices, Inputs]]:
        """Every batch of positions and inputs, or those of `spans` alone, which must ascend."""
        spans = [range(len(self))] if spans is None else spans
        for chunk, table in zip(split(spans, self.batch), self._rows(split(spans, self.batch)), strict=True):
            if self.text is not None:
                self.held.clear()
                self.held.update(zip(chunk.tolist(), table.column(self.text).to_pylist(), strict=True))
            yield chunk, self.inputs(table)

    def take(self, indices: Sequence[int] | Indices) -> tuple[Inputs, Tensor]:
        """The inputs and labels at `indices`, in that order; a pass over the files."""
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        rows, order = wanted.unique(return_inverse=True)
        table = pa.concat_tables(self._rows(rows.split(1)))
        return self.inputs(table.take(pa.array(order.numpy()))), self.labels[wanted]

    def _rows(self, chunks: Iterable[Indices]) -> Iterator[pa.Table]:
        """The rows of chunks, each of positions in a row, that ascend."""
        batches: Iterator[pa.RecordBatch] | None = None
        held, at = pa.RecordBatch.from_pylist([]), 0
        for chunk in chunks:
            wanted, stop = int(chunk[0]), int(chunk[-1]) + 1
            if batches is None:
                batches, at = self.read(wanted), wanted
            parts: list[pa.RecordBatch] = []
            while wanted < stop:
                if wanted >= at + held.num_rows:
                    at += held.num_rows
                    held = self._next(batches)
                    continue
                parts.append(held.slice(wanted - at, stop - wanted))
                wanted += parts[-1].num_rows
            yield pa.Table.from_batches(parts)

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch:
        try:
            return next(batches)
        except StopIteration:
            raise DataError(f"{self.name}: it has fewer rows than when it was opened: the file was changed") from None
