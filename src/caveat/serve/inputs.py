"""From the bytes of a request to inputs: pictures as `folder:` data reads them, and arrays; nothing else."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caveat.data.pictures import MOST_PIXELS, Form, decode, formed
from caveat.errors import DataError
from caveat.files import parse_json
from caveat.serve.limits import RequestError
from caveat.serve.served import Served

__all__ = [
    "JSON",
    "NPY",
    "PICTURES",
    "array_of_body",
    "array_of_json",
    "array_of_npy",
    "body_of_json",
    "pictures",
    "tensor",
]

JSON = "application/json"
NPY = ("application/x-npy", "application/npy", "application/octet-stream")
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
KINDS = "fiu"
"""Floats, signed and unsigned whole numbers, in numpy's letters."""


def pictures(files: Sequence[bytes], served: Served) -> Tensor:
    """Encoded pictures, made into the size and channels of those that the guard was fitted on, in [0, 1].

    Raises
    ------
    RequestError
        If the guard takes no pictures, or one cannot be read; all together may have 16 million pixels.
    """
    wanted = served.picture
    if wanted is None:
        raise RequestError(415, "no_pictures", f"this guard takes arrays of shape {_shown(served)}, no pictures")
    if not files:
        raise RequestError(400, "empty", "expected a picture, got none")
    form, count = Form(size=wanted[1:], channels=wanted[0]), 0
    parts: list[Tensor] = []
    for number, data in enumerate(files):
        try:
            picture = decode(data, place=f"picture {number}", formats=tuple(PICTURES.values()))
        except DataError as error:
            large = "pixels, at most" in str(error)
            raise RequestError(413 if large else 415, "too_large" if large else "picture", str(error)) from None
        count += picture[0].numel()
        if count > MOST_PIXELS:
            raise RequestError(413, "too_large", f"the pictures have more than {MOST_PIXELS:,} pixels together")
        parts.append(formed(picture[None], form))
    return served.check(torch.cat(parts))


def array_of_npy(data: bytes) -> np.ndarray:
    """An array as `numpy.save` writes it; its header is read as a literal, and no objects are.

    Raises
    ------
    RequestError
        If it is none, or holds no numbers.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, by_columns, dtype = read(file)
    except Exception:  # numpy raises whatever the literal, the tokenizer and the dtype raise
        raise RequestError(400, "npy", "the body is no array in numpy's format (npy)") from None
    if dtype.kind not in KINDS:
        raise RequestError(422, "dtype", f"expected an array of numbers, got {dtype}")
    size = math.prod(shape) * dtype.itemsize  # the header may say anything: nothing of that size is made before
    if len(data) - file.tell() != size:
        raise RequestError(400, "npy", f"an array of shape {shape} has {size} bytes, got {len(data) - file.tell()}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")


def array_of_json(found: Any) -> np.ndarray:
    """Nested lists of numbers as an array; null is NaN.

    Raises
    ------
    RequestError
        If they are of different lengths, or hold anything else.
    """
    try:
        array = np.asarray(found)
        if array.dtype == object and array.ndim and all(_number(value) for value in array.flat):
            array = array.astype(np.float64)
    except (ValueError, OverflowError):
        raise RequestError(422, "ragged", "expected lists of numbers, of one length at each depth") from None
    if array.dtype.kind not in KINDS or not array.ndim:
        raise RequestError(422, "dtype", "expected lists of numbers")
    return array


def body_of_json(data: bytes) -> dict[str, Any]:
    """The object that a body says.

    Raises
    ------
    RequestError
        If it is no JSON, or no object.
    """
    try:
        found = parse_json(data, name="body", where="the request", constants=True)
    except DataError as error:
        raise RequestError(400, "json", str(error)) from None
    if not isinstance(found, dict):
        raise RequestError(422, "json", "expected an object of JSON")
    return found


def array_of_body(data: bytes) -> np.ndarray:
    """The array that stands under `inputs` in a body of JSON.

    Raises
    ------
    RequestError
        If there is none.
    """
    found = body_of_json(data)
    if "inputs" not in found:
        raise RequestError(422, "json", "expected an object with the key 'inputs', a list of inputs")
    return array_of_json(found["inputs"])


def tensor(array: np.ndarray, served: Served, *, typed: bool = True) -> Tensor:
    """An array as inputs of the guard; `typed` where whole numbers were meant to be that, which JSON cannot say.

    Raises
    ------
    RequestError
        If there is no input.
    OptionError
        If shape or kind are others than those that the guard was fitted on.
    """
    if not array.ndim or not len(array):
        raise RequestError(
            422, "empty", f"expected inputs of shape {_shown(served)}, got an array of shape {array.shape}"
        )
    whole = array.dtype.kind != "f"
    if served.whole and not whole:
        raise RequestError(422, "dtype", "expected whole numbers, as the guard was fitted on")
    kind = np.int64 if whole and (typed or served.whole) else np.float64 if array.dtype.itemsize > 4 else np.float32
    if array.dtype == np.uint64 and kind is np.int64 and bool((array > np.iinfo(np.int64).max).any()):
        raise RequestError(422, "dtype", "expected whole numbers of 64 bits with a sign")
    found = torch.from_numpy(np.array(array, dtype=kind))  # a copy: the body is not ours to change
    return served.check(found.float() if found.is_floating_point() else found)


def _number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _shown(served: Served) -> str:
    return f"(n, {', '.join(map(str, served.shape))})"
