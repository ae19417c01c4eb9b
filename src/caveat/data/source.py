"""A set of pictures that can be gone through again and again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.data.ahead import ahead
from caveat.errors import DataError

__all__ = ["Images", "Indices", "Reader", "Source", "mapped", "split", "subset"]

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
    one batch is kept, however large the set. Pictures of no known class have the label -1. A picture that cannot be
    read is passed over, and `remarks` says so after the pass.
    """

    name: str
    """As the caller wrote it; errors begin with it."""
    shape: tuple[int, int, int]
    """Channels, height, width."""
    labels: Int[Tensor, "n *labels"]
    """Classes; or `(n, c)`, 0 or 1 for each of c labels."""
    classes: tuple[str, ...] | None
    """Names of the labels 0, 1, ..., if known."""
    batch: int
    read: Reader
    generated: bool = False
    """Noise and the like: not found in the world, and easy to tell from it."""
    place: Callable[[int], str] = str
    """Where the picture of a position is, for people: its file."""
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    """By place, why a picture could not be read; `read` gives NaN for it and notes it here."""
    notes: tuple[str, ...] = ()
    """What a person should know of the set from the start."""
    passed_over: set[int] = field(default_factory=set[int])
    """Positions of pictures that could not be read, as far as they were looked at."""
    workers: int = 0
    """Threads that read batches ahead in a pass over the set; 0 reads each when it is asked for."""

    def __len__(self) -> int:
        return len(self.labels) - len(self.passed_over)

    def __iter__(self) -> Iterator[tuple[Images, Int[Tensor, "n *labels"]]]:
        for chunk, images in self.chunks():
            readable = torch.tensor([position not in self.passed_over for position in chunk.tolist()])
            if readable.all():
                yield images, self.labels[chunk]
            elif readable.any():
                yield images[readable], self.labels[chunk][readable]

    def chunks(self, spans: Sequence[range] | None = None) -> Iterator[tuple[Indices, Images]]:
        """Every batch of positions and pictures, or those of `spans` alone; one that cannot be read is NaN."""
        spans = [range(len(self.labels))] if spans is None else spans
        parts = [
            self.read(islice(split(spans, self.batch), start, None, self.workers)) for start in range(self.workers)
        ]
        found = ahead(parts) if parts else self.read(split(spans, self.batch))
        for chunk, images in zip(split(spans, self.batch), found, strict=True):
            if self.failed:  # else none is NaN, and nothing need be looked at
                self.passed_over.update(chunk[images.isnan().flatten(1).any(dim=1)].tolist())
            yield chunk, images

    @property
    def remarks(self) -> list[str]:
        """What a person should know of the set, after a pass."""
        if not self.passed_over:
            return list(self.notes)
        first = self.place(min(self.passed_over))
        return [
            *self.notes,
            f"{self.name}: {len(self.passed_over)} of {len(self.labels)} pictures could not be read and were left out, "
            f"such as {first} ({self.failed.get(first, 'broken')})",
        ]

    def take(self, indices: Sequence[int] | Indices) -> tuple[Images, Int[Tensor, "n *labels"]]:
        """Give the pictures at `indices`, in that order, without decoding the others.

        Raises
        ------
        DataError
            If a position is not in the set, or its picture cannot be read.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        wrong = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(wrong):
            raise DataError(f"{self.name}: indices must be in 0..{len(self) - 1}, got {int(wrong[0])}")
        if not len(wanted):
            return torch.empty(0, *self.shape, dtype=torch.float32), self.labels[wanted]
        if self.passed_over:  # positions count what a pass gives
            wanted = torch.tensor([p for p in range(len(self.labels)) if p not in self.passed_over])[wanted]
        images = torch.cat(list(self.read(wanted.split(self.batch))))
        if self.failed and images.isnan().any():
            place = self.place(int(wanted[images.isnan().flatten(1).any(dim=1)][0]))
            raise DataError(f"{self.name}: {place}: not a readable picture ({self.failed.get(place, 'broken')})")
        return images, self.labels[wanted]


def split(spans: Iterable[range], batch: int) -> Iterator[Indices]:
    """The positions of `spans`, at most `batch` at a time, none of which reaches over the end of a span.

    Example
    -------
    >>> [chunk.tolist() for chunk in split([range(3), range(5, 7)], batch=2)]
    [[0, 1], [2], [5, 6]]
    """
    for span in spans:
        for start in range(span.start, span.stop, batch):
            yield torch.arange(start, min(start + batch, span.stop))


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

    def place(position: int) -> str:
        return source.place(int(indices[position]))

    return replace(source, labels=source.labels[indices], read=read, place=place, passed_over=set())


def mapped(source: Source, change: Callable[[Images], Images]) -> Source:
    """`source` with every batch of pictures changed by `change`, which must treat each picture by itself."""

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        return map(change, source.read(chunks))

    _, channels, height, width = change(torch.zeros(1, *source.shape, dtype=torch.float32)).shape
    return replace(source, shape=(channels, height, width), read=read, passed_over=set())
