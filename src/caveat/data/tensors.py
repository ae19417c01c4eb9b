"""Sets that are held in memory."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from caveat.data.source import Images, Indices, Source
from caveat.errors import DataError

__all__ = ["Pixels", "from_tensors", "in_memory", "unit"]

Pixels = Float[Tensor, "n _ _ _"] | UInt8[Tensor, "n _ _ _"]
"""As stored, `(n, ch, h, w)`: floats in [0, 1], or bytes in 0..255."""


def from_tensors(
    images: Pixels,
    labels: Int[Tensor, "n *labels"] | None = None,
    *,
    name: str = "tensors",
    classes: tuple[str, ...] | None = None,
    batch: int = 256,
) -> Source:
    """A set of pictures that are in memory.

    Bytes are kept as bytes and become floats batch by batch. Without `labels`, every label is -1.

    Raises
    ------
    DataError
        If there are no pictures, a pixel is not in [0, 1], or there are not as many labels as pictures.

    Example
    -------
    >>> source = from_tensors(torch.tensor([[[[0, 51]]], [[[102, 255]]]], dtype=torch.uint8))
    >>> [inputs.flatten().tolist() for inputs, _ in source]
    [[0.0, 0.2..., 0.4..., 1.0]]
    """
    if labels is None:
        labels = torch.full((len(images),), -1)
    if len(labels) != len(images):
        raise DataError(f"{name}: {len(images)} pictures but {len(labels)} labels: one label for each is needed")
    if images.numel() == 0:
        raise DataError(f"{name}: no pictures: its shape is {tuple(images.shape)}")
    if images.is_floating_point():
        low, high = (value.item() for value in images.aminmax())
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise DataError(f"{name}: pixels must be numbers in [0, 1] (or bytes), these are in [{low:g}, {high:g}]")

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        return (unit(images[chunk].contiguous()) for chunk in chunks)

    _, channels, height, width = images.shape
    return Source(name, (channels, height, width), labels.to(torch.int64), classes, batch, read)


def in_memory(source: Source) -> Source:
    """`source` decoded once and held: as bytes where that loses nothing (a quarter of the room), else as float32."""
    return from_tensors(pixels(source), source.labels, name=source.name, classes=source.classes, batch=source.batch)


def pixels(source: Source) -> Pixels:
    """All pictures of a set in one tensor: bytes if they are whole 255ths, else float32.

    Raises
    ------
    DataError
        If a picture cannot be read.
    """
    parts: list[Pixels] = []
    for inputs, _ in source:
        as_bytes = (inputs * 255).round_().to(torch.uint8)
        parts.append(as_bytes if torch.equal(unit(as_bytes), inputs) else inputs)
    if source.passed_over:
        raise DataError(f"{source.remarks[-1]}; mend or remove them: the set is held in memory, picture by label")
    if all(part.dtype == torch.uint8 for part in parts):
        return torch.cat(parts)
    return torch.cat([unit(part) for part in parts])


def unit(images: Pixels) -> Images:
    """Pixels as float32 in [0, 1]."""
    return images.to(torch.float32) if images.is_floating_point() else images.to(torch.float32).div_(255)
