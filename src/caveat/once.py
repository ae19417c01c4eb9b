"""What several functions need of the same tensors, computed once while they take turns."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["remembering", "shared"]

T = TypeVar("T")
_last: ContextVar[dict[Callable[..., Any], tuple[tuple[Any, ...], Any]] | None] = ContextVar("_last", default=None)


@contextmanager
def remembering() -> Generator[None]:
    """Within, `shared` keeps the last result of each function; for tensors that nobody changes meanwhile."""
    token = _last.set({})
    try:
        yield
    finally:
        _last.reset(token)


def shared(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`; within `remembering` the last result again, if the tensors are the very same.

    Example
    -------
    >>> import torch
    >>> ones = torch.ones(2)
    >>> with remembering():
    ...     first = shared(torch.exp, ones)
    ...     shared(torch.exp, ones) is first, shared(torch.exp, ones.clone()) is first
    (True, False)
    """
    last = _last.get()
    if last is None:
        return function(*arguments)
    known = last.get(function)
    if known is None or not _same(known[0], arguments):
        last[function] = known = (arguments, function(*arguments))
    return known[1]


def _same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    """Tensors, and what holds some, by identity: to compare their numbers would cost what is saved."""
    pairs = zip(before, now, strict=True)
    return all(a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b) for a, b in pairs)
