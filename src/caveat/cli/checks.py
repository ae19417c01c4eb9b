"""What can be wrong with options, told before any work is done: a refusal costs nothing and leaves nothing behind."""

import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from caveat.errors import CaveatError, DataError, OptionError, check_suffix
from caveat.files import read_json, reason

__all__ = ["clash", "existing", "given", "output_file", "output_folder", "positive", "share"]

PAGE_STARTS = b"<title>Caveat"
HEAD = 4096
"""Bytes of a page in which its title stands."""


def given(command: Callable[..., None], values: Mapping[str, object]) -> set[str]:
    """Names of the options of a command whose values are not their defaults."""
    options = inspect.signature(command).parameters
    return {name for name, option in options.items() if values[name] != option.default.default}


def clash(option: str, others: Iterable[str], why: str) -> None:
    """Refuse options that have no effect beside `option`.

    Raises
    ------
    OptionError
        If there are such `others` (names of parameters); they are all named.
    """
    if names := sorted(f"--{name.replace('_', '-')}" for name in others):
        raise OptionError(f"{option}: {why}; leave out {', '.join(names)}")


def positive(option: str, values: Iterable[float], *, zero: bool = False) -> None:
    """Refuse numbers below zero, and zero itself unless `zero`.

    Raises
    ------
    OptionError
        If there is one.
    """
    for value in values:
        if value < 0 or (value == 0 and not zero):
            raise OptionError(f"{option}: expected a number {'of at least' if zero else 'above'} 0, got {value:g}")


def share(option: str, value: float | None) -> None:
    """Refuse what is no share between 0 and 1.

    Raises
    ------
    OptionError
        If it is none.
    """
    if value is not None and not 0 < value < 1:
        hint = f"; write {value / 100:g} for {value:g} %" if 1 < value < 100 else ""
        raise OptionError(f"{option}: expected a share in (0, 1), got {value:g}{hint}")


def existing(option: str, path: Path | None) -> None:
    """Refuse a file to read that is not there.

    Raises
    ------
    DataError
        If it is no file.
    """
    if path is not None and not path.is_file():
        what = "it is a folder, expected a file" if path.is_dir() else "no such file; check the path"
        raise DataError(f"{option}: cannot read {path} ({what})")


def output_file(option: str, path: Path, suffixes: Iterable[str]) -> None:
    """Refuse a file that can't be written there.

    Raises
    ------
    OptionError
        If its name says another format, or it is a folder.
    CaveatError
        If its folder cannot be written to.
    """
    check_suffix(option, path.name, suffixes)
    if path.is_dir():
        raise OptionError(f"{option}: {path} is a folder; expected the name of a file")
    _writable(option, path.parent)


def output_folder(path: Path, own: Iterable[str] = (), *, option: str = "-o") -> None:
    """Refuse a folder that results can't be written to, or where they would replace a file that Caveat did not write.

    Raises
    ------
    OptionError
        If the path is a file, or the folder holds a file of a name in `own` that is not of Caveat.
    CaveatError
        If the folder cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"{option}: {path} is a file; expected a folder")
    for name in own:
        if (path / name).exists() and not _ours(path / name):
            raise OptionError(
                f"{option}: {path / name} was not written by Caveat and would be replaced; choose another folder"
            )
    _writable(option, path)


def _ours(path: Path) -> bool:
    """Whether a record, findings or page is of Caveat, by what it begins with."""
    if path.suffix == ".json":
        try:
            found = read_json(path, name="-o", constants=True)
        except DataError:
            return False
        return isinstance(found, Mapping) and "caveat_version" in found
    try:
        with path.open("rb") as file:
            return PAGE_STARTS in file.read(HEAD)
    except OSError:
        return False


def _writable(option: str, folder: Path) -> None:
    """Try it, where the path ends that is there already: permission bits do not tell about full or read-only disks."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:
        raise CaveatError(f"{option}: cannot write to {folder} ({reason(error)}); name another place") from None
