"""The one home of files: written whole or not at all, read with errors that name the option, the path and the remedy.

Tensors are read and written by `caveat.tensors`, which stands on this; here is no torch.
"""

import glob
import json
import os
import platform
import re
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from caveat.errors import CaveatError, DataError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

__all__ = [
    "MOST",
    "TEMPORARY",
    "alone",
    "parse_json",
    "read_bytes",
    "read_json",
    "reason",
    "replacing",
    "write_atomically",
    "write_bytes",
    "writing",
]

MOST = 1 << 26
"""Bytes of JSON that are read unless told otherwise: 64 MiB, several times the largest record."""
TEMPORARY = r"\.{name}\.[0-9a-f]{{8}}\.\d+\.tmp"
"""Pattern of the temporary file beside a file whose name `{name}` matches: machine and process."""
NESTED = 100
"""Levels of lists and objects in JSON that are followed."""


def write_atomically(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; see `replacing`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary path beside `path`: what the block writes there takes the place of `path` when the block ends well.

    A reader sees the old file or the new one, also after a power failure, and two processes do not mix. Where the block
    fails, or writes nothing, `path` stays as it was.

    Raises
    ------
    CaveatError
        If the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.with_name(glob.escape(path.name)))
        try:
            yield temporary
            if temporary.exists():
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
                _sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Within, no other process that asks writes to `folder`, which is made; a process that dies lets go of it.

    Temporary files that processes left there when they were killed are removed first.

    Raises
    ------
    CaveatError
        If another process writes there now, or the folder cannot be made.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with writing(folder / "lock"):
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CaveatError(
                f"output: another process of Caveat is writing to {folder}: wait for it, or name another folder"
            ) from None
        except OSError:  # a file system without locks: what was written is checked by its hashes in any case
            pass
        # deeper ones are swept when they are written again: to walk a large folder would cost more
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            _sweep(place / "*")
        yield
    finally:
        os.close(opened)
        with suppress(OSError):  # the first that holds anything stays, and so do those above
            for place in made:  # refused before anything was written
                place.rmdir()


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Say in one line that `path` cannot be written where the block fails for that reason.

    Raises
    ------
    CaveatError
        Instead of an `OSError`, unless that one names a file of another folder.
    """
    try:
        yield
    except OSError as error:
        if not _concerns(error, path):
            raise
        raise CaveatError(
            f"output: cannot write {path} ({reason(error)}): make room there, or name another place"
        ) from error


def _machine() -> str:
    """Eight digits for the name of this machine: folders may be shared, and process numbers are its own."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _sweep(pattern: Path) -> None:
    """Remove temporary files of names like that whose process, on this machine, is no more: it was killed."""
    for left in pattern.parent.glob(f".{pattern.name}.{_machine()}.*.tmp"):
        number = left.name.split(".")[-2]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (OSError, ValueError):  # of another user, or no name of ours
            continue


def _concerns(error: OSError, path: Path) -> bool:
    """Whether it comes from writing `path`: it names its folder, a file in it or a folder above, or nothing at all."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return True
    named = Path(os.fsdecode(error.filename))
    return named.parent == path.parent or named in path.parents


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def read_bytes(path: Path, *, name: str, most: int | None = None) -> bytes:
    """All bytes of a file, `most` at most; `name` is the option or the file's name that an error begins with.

    Raises
    ------
    DataError
        If the file is missing, cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read() if most is None else file.read(most + 1)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise DataError(f"{name}: cannot read {path} ({reason(error)}); check the path") from None
    if most is not None and len(data) > most:
        raise DataError(f"{name}: {path} has more than {most:,} bytes, the most that is read; is it the right file?")
    return data


def read_json(path: Path, *, name: str, most: int = MOST, constants: bool = False) -> Any:
    """Read a file of JSON; see `read_bytes` and `parse_json`.

    Raises
    ------
    DataError
        If the file is missing or too large, or is not JSON.
    """
    return parse_json(read_bytes(path, name=name, most=most), name=name, where=path, constants=constants)


def parse_json(data: bytes | str, *, name: str, where: Path | str, constants: bool = False) -> Any:
    """What a text of JSON says; `where` it stands is told in an error.

    Raises
    ------
    DataError
        If it is not JSON, is nested too deeply, or holds half of a character, or NaN or infinity without `constants`.
    """

    def constant(text: str) -> float:
        if not constants:
            raise ValueError(f"it holds {text}, which is no number")
        return float(text)

    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        found = json.loads(text, parse_constant=constant)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a character, that no file could be written with
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: {where} is not JSON ({reason(error)}); is it the right file, and whole?") from None
    if not _flat_enough(found):
        raise DataError(f"{name}: {where} is nested more than {NESTED} deep; is it the right file?")
    return found


def _flat_enough(found: Any) -> bool:
    level = [found]
    for _ in range(NESTED + 1):
        level = [
            part
            for value in level
            if isinstance(value, dict | list)
            for part in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return True
    return False


def reason(error: BaseException) -> str:
    """Why something failed, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), "") or type(error).__name__
