"""Reading ahead: the next batches are made in threads while the network is at the last one."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(parts: Sequence[Iterator[T]]) -> Iterator[T]:
    """The items of several iterators in turn, the next one of each made in a thread meanwhile.

    As many items are held as there are iterators. Of parts `batches[k::n]` the batches come in their order.

    Example
    -------
    >>> list(ahead([iter([0, 2, 4]), iter([1, 3])]))
    [0, 1, 2, 3, 4]
    """
    end = object()
    with ThreadPoolExecutor(len(parts), thread_name_prefix="caveat-reading") as pool:

        def made(part: Iterator[T]) -> "tuple[Iterator[T], Future[T | object]]":
            return part, pool.submit(next, part, end)

        waiting = deque(made(part) for part in parts)
        try:
            while waiting:
                part, future = waiting.popleft()
                item = future.result()
                if item is not end:
                    waiting.append(made(part))
                    yield item  # pyright: ignore[reportReturnType]  # it is not the end
        finally:
            for _, future in waiting:
                future.cancel()
