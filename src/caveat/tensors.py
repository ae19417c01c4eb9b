"""The one home of files of tensors (safetensors): written whole or not at all, read with errors that teach."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    path: Path, *, name: str, keys: Iterable[str] | None = None, hint: str = ""
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an npz archive (of `keys` those that there are, else all), and the names of all; no pickles.

    `hint` ends the error about a file that is no such archive.

    Raises
    ------
    DataError
        If the file is missing, broken, no archive of plain arrays, holds two arrays of one name, or unpacks to more
        than 16 GiB.
    """
    try:
        # NumPy leaves a broken file open if it opened it itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            unpacked = sum(entry.file_size for entry in archive.zip.infolist())
            if unpacked > MOST_UNPACKED:
                raise DataError(f"{name}: {path} unpacks to {unpacked} bytes; at most {MOST_UNPACKED} are read")
            found = sorted(archive.files)
            if twice := {key for key in found if found.count(key) > 1}:
                raise DataError(f"{name}: {path} holds {min(twice)!r} more than once: which is meant?")
            return {key: archive[key] for key in (found if keys is None else keys) if key in found}, found
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name}: cannot read {path} ({error.strerror or error})") from None
    except Exception:  # a damaged archive raises nearly anything, tokenize.TokenError among them
        raise DataError(
            f"{name}: {path} is not a whole npz archive of plain arrays (pickled ones are refused){hint}"
        ) from None


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
