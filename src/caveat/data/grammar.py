"""How a set is written: `NAME[:SPLIT][+MODIFIER...]` or `KIND:WHERE[+MODIFIER...]`."""

import glob
from dataclasses import dataclass
from pathlib import Path

from caveat.errors import OptionError

__all__ = ["Spec", "counted", "numbered", "parse"]


@dataclass(frozen=True)
class Spec:
    """A set as it was written, taken apart."""

    head: str
    """A name or a kind."""
    tail: str
    """What follows the first colon: a split, a path; may be empty."""
    modifiers: tuple[str, ...]


def parse(spec: str, *, kinds: tuple[str, ...]) -> Spec:
    """Take a set's text apart.

    A path after one of `kinds` may itself contain `+`: of all the ways to read `KIND:a+b+c`, the longest path that
    exists is taken.

    Example
    -------
    >>> parse("mnist:test+invert+first=10", kinds=())
    Spec(head='mnist', tail='test', modifiers=('invert', 'first=10'))
    """
    head, _, rest = spec.partition(":")
    if head in kinds:
        parts = rest.split("+")
        for length in range(len(parts), 0, -1):
            path = "+".join(parts[:length])
            if path and _exists(path):
                return Spec(head, path, tuple(parts[length:]))
    base, *modifiers = spec.split("+")
    head, _, tail = base.partition(":")
    return Spec(head.strip(), tail.strip(), tuple(part.strip() for part in modifiers))


def counted(text: str, *, name: str, modifier: str) -> int:
    """The whole number after a modifier's `=`."""
    if not text.isdecimal():
        raise OptionError(f"{name}: +{modifier} needs a number, as in +{modifier}=100, got {text!r}")
    return int(text)


def numbered(text: str, *, name: str, modifier: str) -> tuple[int, ...]:
    """The labels after a modifier's `=`, with commas between them."""
    labels = text.split(",")
    if not all(label.isdecimal() for label in labels):
        raise OptionError(f"{name}: +{modifier} needs labels, as in +{modifier}=3,5, got {text!r}")
    return tuple(map(int, labels))


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists() or any(glob.iglob(path, recursive=True))
