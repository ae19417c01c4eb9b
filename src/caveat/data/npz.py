"""NumPy archives of pixel arrays."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caveat.data.number_files import from_arrays, several
from caveat.data.numbers import Numbers
from caveat.data.source import Source
from caveat.data.tensors import Pixels, from_tensors
from caveat.errors import DataError
from caveat.tensors import read_npz

__all__ = ["open_npz"]

IMAGES = ("images", "x", "X")
LABELS = ("labels", "y")


def open_npz(path: Path, *, name: str, batch: int = 256, gaps: bool = False) -> Source | Numbers:
    """A set in a NumPy archive: an array `images`, `x` or `X`, and if there are labels, an array `labels` or `y`.

    Pixels are bytes in 0..255 or floats in [0, 1]. Three axes are `(n, h, w)`. Four are `(n, ch, h, w)` or
    `(n, h, w, ch)`, told apart by where the axis of length 1 or 3 is; if both could be it, that is an error. Two are
    rows of numbers, whose labels may be real, and which may hold NaN with `gaps`. Labels `(n, c)` are 0 and 1 for each
    of c labels. Nothing pickled is loaded. Bytes and float32 that are not compressed stay in the file, of which batches
    are read.

    Raises
    ------
    DataError
        If the file is missing or broken, its arrays are not of these kinds, or two could be meant.
    """
    arrays, found = read_npz(path, name=name, keys=(*IMAGES, *LABELS), mapped=True)
    images, labels = _one_of(IMAGES, arrays, name), _one_of(LABELS, arrays, name)
    if images is None:
        raise DataError(f"{name}: no array 'images', 'x' or 'X' in the archive, only {found}")
    if images.ndim == 2 and "images" not in arrays:
        return from_arrays(images, labels, name=name, batch=batch, gaps=gaps)
    if labels is not None and labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        whole = several(torch.from_numpy(labels), None, name)
    elif labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        remedy = _remedy(labels)
        raise DataError(f"{name}: labels must be whole numbers (n,), got {labels.dtype} {labels.shape}: {remedy}")
    else:
        whole = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    return from_tensors(_pixels(images, name), whole, name=name, batch=batch)


def _remedy(labels: np.ndarray) -> str:
    """What makes them whole numbers, without changing what they say."""
    if labels.ndim == 2:
        return "labels[:, 0]"
    if labels.dtype.kind in "USO":
        return "names, labels = np.unique(labels, return_inverse=True) numbers the names in their order"
    if labels.dtype.kind == "f" and not bool((labels == np.round(labels)).all()):
        wrong = labels[labels != np.round(labels)][0]
        return f"{wrong} is no whole number, so no class"
    return "labels.astype(int)"


def _one_of(names: tuple[str, ...], arrays: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    there = [key for key in names if key in arrays]
    if len(there) > 1:
        raise DataError(
            f"{name}: arrays {' and '.join(map(repr, there))} are both there: expected one; remove the other"
        )
    return arrays[there[0]] if there else None


def _pixels(images: np.ndarray, name: str) -> Pixels:
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(f"{name}: pixels must be bytes in 0..255 or floats in [0, 1], got {images.dtype}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        array = images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)
    return _channels_first(torch.from_numpy(array), name)


def _channels_first(images: Tensor, name: str) -> Tensor:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise DataError(f"{name}: images must be (n, h, w), (n, h, w, ch) or (n, ch, h, w), got {tuple(images.shape)}")
    before, after = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if before == after:
        why = "both axis 1 and axis 3" if before else "neither axis 1 nor axis 3"
        raise DataError(f"{name}: {why} of {tuple(images.shape)} can be the channels (1 or 3 long): reshape the array")
    return images if before else images.permute(0, 3, 1, 2)
