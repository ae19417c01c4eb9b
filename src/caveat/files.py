"""Files of an audit that hold JSON: written in one go, read with errors that name the file."""

import json
import os
from pathlib import Path

from caveat.errors import DataError

__all__ = ["read_json", "write_atomically", "write_bytes"]


def write_atomically(path: Path, text: str) -> None:
    """Write `text` under a temporary name beside `path`, then rename: a reader never sees half a file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_atomically`, for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, *, name: str) -> object:
    """Read a file of JSON; `name` is what the file is called in an error.

    Raises
    ------
    DataError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{name}: cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: {path} is not JSON ({error})") from None
