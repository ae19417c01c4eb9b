"""One exception hierarchy: whatever the caller can mend raises a `CaveatError`."""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CaveatError",
    "CaveatWarning",
    "DataError",
    "MissingExtraError",
    "ModelError",
    "OptionError",
    "check_suffix",
    "known_name",
    "nearest",
    "printable",
]

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what controls a terminal, turns the direction of reading, or breaks a line."""


class CaveatError(ValueError):
    """A mistake the caller can mend: the message names the argument, what was expected and what came."""


class DataError(CaveatError):
    """A set of inputs, labels or observations that can't be used."""


class ModelError(CaveatError):
    """A network that can't be used as it is."""


class OptionError(CaveatError):
    """A name or value of an option that does not exist."""


class MissingExtraError(CaveatError):
    """A feature of an optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: install it with  pip install 'caveat[{extra}]'")


class CaveatWarning(UserWarning):
    """Something works, but slower or with less than the caller may expect."""


def check_suffix(option: str, name: str, suffixes: Iterable[str]) -> None:
    """Refuse an output file whose name says another format: it may be a file of the user's.

    Raises
    ------
    OptionError
        If the name ends otherwise.
    """
    suffixes = tuple(suffixes)
    if not name.lower().endswith(suffixes):
        raise OptionError(f"{option}: expected a name that ends in {' or '.join(suffixes)}, got {name!r}")


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the most similar of `names`, or at all of them."""
    names = list(names)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of {', '.join(names)}" if names else "there are none"


def known_name(option: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`; else say which is nearest.

    Raises
    ------
    OptionError
        If it is not.
    """
    names = list(names)
    if name in names:
        return name
    got = f"there is no {name!r}" if name else "no name was given"
    raise OptionError(f"{option}: {got}; {nearest(name, names)}")


def printable(text: str) -> str:
    r"""A text on one line, what is not to be seen written as an escape.

    >>> printable("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSEEN else char for char in text
    )
