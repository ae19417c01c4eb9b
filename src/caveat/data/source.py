"""A set of pictures that can be gone through again and again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.errors import DataError
from caveat.types import Labels

__all__ = ["Images", "Indices", "Reader", "Source", "mapped", "subset"]

Images: TypeAlias = Float[Tensor, "n _ _ _"]
"""Pictures `(n, ch, h, w)` in [0, 1]: grey (ch = 1) or red, green, blue (ch = 3)."""
Indices: TypeAlias = Int[Tensor, " _"]
"""Positions in a set, from 0."""
Reader: TypeAlias = Callable[[Iterable[Indices]], Iterator[Images]]
"""From chunks of positions to the pictures of each chunk, in that order. One call is one pass over the files."""


@dataclass(frozen=True)
class Source:
    """A set of pictures in a fixed order.

    Going through it gives `(inputs (n, ch, h, w) float32 in [0, 1], labels (n,) int64)`, `batch` at a time; nothing but
    one batch is kept, however large the set. Pictures of no known class have the label -1.
    """

    name: str
    """As the caller wrote it; errors begin with it."""
    shape: tuple[int, int, int]
    """Channels, height, width."""
    labels: Labels
    classes: tuple[str, ...] | None
    """Names of the labels 0, 1, ..., if known."""
    batch: int
    read: Reader
    generated: bool = False
    """Noise and the like: not found in the world, and easy to tell from it."""

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Images, Labels]]:
        chunks = torch.arange(len(self)).split(self.batch)
        for chunk, images in zip(chunks, self.read(chunks), strict=True):
            yield images, self.labels[chunk]

    def take(self, indices: Sequence[int] | Indices) -> tuple[Images, Labels]:
        """Give the pictures at `indices`, in that order, without decoding the others.

        Raises
        ------
        DataError
            If a position is not in the set.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        wrong = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(wrong):
            raise DataError(f"{self.name}: indices must be in 0..{len(self) - 1}, got {int(wrong[0])}")
        if not len(wanted):
            return torch.empty(0, *self.shape, dtype=torch.float32), self.labels[wanted]
        return torch.cat(list(self.read(wanted.split(self.batch)))), self.labels[wanted]


def subset(source: Source, indices: Indices) -> Source:
    """The pictures of `source` at `indices`, in that order; the others are never decoded.

    Raises
    ------
    DataError
        If nothing is left.
    """
    if not len(indices):
        raise DataError(f"{source.name}: no pictures are left")

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        return source.read(indices[chunk] for chunk in chunks)

    return replace(source, labels=source.labels[indices], read=read)


def mapped(source: Source, change: Callable[[Images], Images]) -> Source:
    """`source` with every batch of pictures changed by `change`, which must treat each picture by itself."""

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        return map(change, source.read(chunks))

    _, channels, height, width = change(torch.zeros(1, *source.shape, dtype=torch.float32)).shape
    return replace(source, shape=(channels, height, width), read=read)
