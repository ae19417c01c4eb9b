"""Sets of encoded pictures (PNG, JPEG ...), wherever they lie: decoded batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TypeAlias

import torch

from caveat.data.pictures import Form, decode_batch
from caveat.data.source import Images, Indices, Source
from caveat.errors import DataError
from caveat.types import Labels

__all__ = ["Fetch", "from_encoded"]

TRIED = 16
"""Pictures of which one must be readable, to know what the set is like."""

Fetch: TypeAlias = Callable[[Iterable[Indices]], Iterator[tuple[list[int], Sequence[bytes | Path]]]]
"""From chunks of positions to each chunk's positions, as they came, and its encoded pictures."""


def from_encoded(
    fetch: Fetch,
    labels: Labels,
    *,
    name: str,
    classes: tuple[str, ...] | None,
    batch: int,
    form: Form,
    place: Callable[[int], str],
    notes: tuple[str, ...] = (),
) -> Source:
    """A set of encoded pictures. `place` names a picture in errors.

    One that cannot be read is passed over when its turn comes (`Source.remarks`).

    Raises
    ------
    DataError
        If none of the first pictures can be read.
    """
    failed: dict[str, str] = {}

    def read_as(shape: tuple[int, int, int] | None, chunks: Iterable[Indices]) -> Iterator[Images]:
        for indices, data in fetch(chunks):
            places = [place(index) for index in indices]
            yield decode_batch(data, name=name, places=places, form=form, shape=shape, failed=failed)

    _, channels, height, width = _first(read_as, len(labels)).shape

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        return read_as((channels, height, width), chunks)

    shape = (channels, height, width)
    return Source(name, shape, labels, classes, batch, read, place=place, failed=failed, notes=notes)


def _first(read_as: Callable[[None, Iterable[Indices]], Iterator[Images]], count: int) -> Images:
    """The first picture that can be read, of a few."""
    for position in range(min(count, TRIED)):
        with suppress(DataError) if position + 1 < min(count, TRIED) else nullcontext():
            return next(read_as(None, [torch.tensor([position])]))
    raise AssertionError("the last one raises")
