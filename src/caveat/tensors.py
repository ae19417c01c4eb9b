"""The one home of files of tensors (safetensors): written whole or not at all, read with errors that teach."""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as _load
from safetensors.torch import save as _save
from torch import Tensor

from caveat.errors import DataError
from caveat.files import reason, write_bytes

__all__ = [
    "MOST_UNPACKED",
    "digest",
    "pack",
    "read_header",
    "read_npz",
    "read_tensors",
    "read_with_header",
    "unpack",
    "write_tensors",
]

MOST_UNPACKED = 1 << 34
"""Bytes of all arrays of an npz archive at most: one of some megabytes can unpack to any number."""
SEAL = "sha256"
"""Text of a header: `digest` of all else in the file."""
HEADERS: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
}  # fmt: skip
"""What reads the head of an array in a file, by the version of its format."""
BROKEN = (OSError, SafetensorError, KeyError, ValueError, RuntimeError, OverflowError)
"""What safetensors raises about missing, cut and hostile files; a type of numbers it does not know is a KeyError."""


def read_tensors(path: str | Path, *, name: str = "path") -> dict[str, Tensor]:
    """Memory-map all tensors of a file, on the CPU; `name` is the option or the file's name that an error begins with.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    return _read(path, name)[0]


def read_with_header(path: str | Path, *, name: str = "path") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the texts of a file that `write_tensors` wrote with a header: they are those that were written.

    Raises
    ------
    DataError
        If the file is missing or damaged, or its content is not what its hash says.
    """
    tensors, header = _read(path, name)
    if header.pop(SEAL, None) != digest(tensors, header):
        raise DataError(
            f"{name}: {path} was altered after it was written (SHA-256 differs), or another program or version of "
            "Caveat wrote it: make it anew"
        )
    return tensors, header


def read_header(path: str | Path, *, name: str = "path") -> dict[str, str]:
    """The texts in a file's header alone, which nothing is known of yet."""
    return {key: text for key, text in _read(path, name, most=0)[1].items() if key != SEAL}


def _read(path: str | Path, name: str, *, most: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in [*file.keys()][:most]}, file.metadata() or {}
    except BROKEN as error:
        raise _unreadable(name, path, error) from None


def digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, and over plain values, in the order of their names."""
    found = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        found.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return found.hexdigest()


def read_npz(
    path: Path, *, name: str, keys: Iterable[str] | None = None, hint: str = "", mapped: bool = False
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an npz archive (of `keys` those that there are, else all), and the names of all; no pickles.

    `hint` ends the error about a file that is no such archive. With `mapped`, arrays that are not compressed are read
    once, to compare them with their checksum, and stay in the file: they may be larger than memory.

    Raises
    ------
    DataError
        If the file is missing, broken, no archive of plain arrays, holds two arrays of one name, or unpacks to more
        than 16 GiB.
    """
    try:
        # NumPy leaves a broken file open if it opened it itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            entries = archive.zip.infolist()
            unpacked = sum(each.file_size for each in entries if not (mapped and _stored(each)))
            if unpacked > MOST_UNPACKED:
                raise DataError(f"{name}: {path} unpacks to {unpacked} bytes; at most {MOST_UNPACKED} are read")
            found = sorted(archive.files)
            if twice := {key for key in found if found.count(key) > 1}:
                raise DataError(f"{name}: {path} holds {min(twice)!r} more than once: which is meant?")
            places = {each.filename.removesuffix(".npy"): each for each in entries if mapped and _stored(each)}
            chosen = [key for key in (found if keys is None else keys) if key in found]
            left = {key: _mapped(path, archive.zip, places.get(key)) for key in chosen}
            return {key: archive[key] if array is None else array for key, array in left.items()}, found
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name}: cannot read {path} ({error.strerror or error})") from None
    except Exception:  # a damaged archive raises nearly anything, tokenize.TokenError among them
        raise DataError(
            f"{name}: {path} is not a whole npz archive of plain arrays (pickled ones are refused){hint}"
        ) from None


def _stored(entry: ZipInfo) -> bool:
    return entry.compress_type == ZIP_STORED and entry.file_size == entry.compress_size


def _mapped(path: Path, archive: ZipFile, entry: ZipInfo | None) -> np.ndarray | None:
    """An array that is not compressed, left in the file; None if it has to be read."""
    if entry is None:
        return None
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            return None
        shape, by_columns, kind = HEADERS[version](stream)
        header = stream.tell()
        if kind.hasobject or not math.prod(shape) or header + math.prod(shape) * kind.itemsize != entry.file_size:
            return None
        while stream.read(1 << 20):  # the checksum is compared at the end
            pass
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        lengths = struct.unpack("<HH", file.read(4))  # of the name and of what follows it, before the content
    start = entry.header_offset + 30 + sum(lengths) + header
    # copy on write: tensors may not stand on what cannot be written
    return np.memmap(path, kind, "c", start, shape, order="F" if by_columns else "C")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], *, header: Mapping[str, str] | None = None) -> None:
    """Write tensors, from any device and in any layout, whole or not at all; with a `header`, sealed by a hash of all.

    Raises
    ------
    CaveatError
        If the file cannot be written.
    """
    sealed = None if header is None else dict(header) | {SEAL: digest(tensors, header)}
    write_bytes(Path(path), pack(tensors, header=sealed))


def pack(tensors: Mapping[str, Tensor], *, header: Mapping[str, str] | None = None) -> bytes:
    """The bytes of such a file."""
    # copied: tied weights may not share memory
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return _save(plain, metadata=None if header is None else dict(header))


def unpack(data: bytes, *, name: str, where: Any) -> dict[str, Tensor]:
    """The tensors in the bytes of such a file; `where` they stand is told in an error.

    Raises
    ------
    DataError
        If the bytes are damaged.
    """
    try:
        return _load(data)
    except BROKEN as error:
        raise _unreadable(name, where, error) from None


def _unreadable(name: str, where: Any, error: BaseException) -> DataError:
    return DataError(f"{name}: cannot read {where} as safetensors ({reason(error)}); check the path, or make it anew")
