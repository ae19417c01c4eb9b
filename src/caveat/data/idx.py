"""The format of the original MNIST files."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from caveat.data.source import Source
from caveat.data.tensors import from_tensors
from caveat.errors import DataError

__all__ = ["open_idx"]

LARGEST = 1 << 32
"""Bytes of an array at most: a file of some megabytes can declare, and unpack to, any number."""


def open_idx(folder: Path, split: str, *, name: str, batch: int = 256, classes: tuple[str, ...]) -> Source:
    """A set in the format of the original MNIST: `{train,t10k}-images-idx3-ubyte.gz` and `...-labels-idx1-ubyte.gz`.

    Raises
    ------
    DataError
        If a file is missing, cut off, or not idx.
    """
    prefix = folder / {"train": "train", "test": "t10k"}[split]
    images = _idx(Path(f"{prefix}-images-idx3-ubyte.gz"), 3, name)
    labels = _idx(Path(f"{prefix}-labels-idx1-ubyte.gz"), 1, name)
    return from_tensors(
        torch.from_numpy(images)[:, None], torch.from_numpy(labels).long(), name=name, batch=batch, classes=classes
    )


def _idx(path: Path, axes: int, name: str) -> np.ndarray:
    """An array of bytes: magic 0, 0, 8 (bytes), number of axes; their lengths as big-endian 32-bit; the bytes."""
    try:
        with gzip.open(path) as file:
            magic, *shape = struct.unpack(f">{axes + 1}I", file.read(4 * (axes + 1)))
            size = math.prod(shape)
            if size > LARGEST:
                raise DataError(f"{name}: {path.name} declares {size} bytes; at most {LARGEST} are read")
            array = np.frombuffer(file.read(size + 1), np.uint8)  # one more tells a file that is longer
        if magic != 0x0800 + axes or array.size != size:
            raise DataError(f"{name}: {path.name} is not an idx file of bytes with {axes} axes, or is cut off")
        return array.reshape(shape).copy()
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{name}: cannot read {path} ({str(error) or type(error).__name__})") from None
