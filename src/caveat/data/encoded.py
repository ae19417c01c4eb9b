"""Sets of encoded pictures (PNG, JPEG ...), wherever they lie: decoded batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from caveat.data.pictures import Form, decode_batch
from caveat.data.source import Images, Indices, Source
from caveat.types import Labels

__all__ = ["Fetch", "from_encoded"]

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
) -> Source:
    """A set of encoded pictures. `place` names a picture in errors.

    Raises
    ------
    DataError
        If the first picture is broken; the others are looked at when they are read.
    """

    def read_as(shape: tuple[int, int, int] | None, chunks: Iterable[Indices]) -> Iterator[Images]:
        for indices, data in fetch(chunks):
            places = [f"{name}: {place(index)}" for index in indices]
            yield decode_batch(data, places=places, form=form, shape=shape)

    _, channels, height, width = next(read_as(None, [torch.tensor([0])])).shape

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        return read_as((channels, height, width), chunks)

    return Source(name, (channels, height, width), labels, classes, batch, read)
