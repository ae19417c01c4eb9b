"""Requests that come at the same time share a pass of the network, which one thread runs."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from caveat.errors import CaveatError
from caveat.guard.examples import Nearest
from caveat.serve.limits import Limits, RequestError
from caveat.serve.served import Answer

__all__ = ["Batcher"]

Found = TypeVar("Found", Answer, Nearest)
"""A row for every input."""


@dataclass(frozen=True)
class _Asked(Generic[Found]):
    inputs: Tensor
    answer: "Future[Found]"


class Batcher(Generic[Found]):
    """A bounded queue in front of `ask`, and the thread that empties it.

    A pass takes what waits, up to `limits.batch` inputs. It waits for more, `limits.wait` at most, only while requests
    are on their way to it (`coming`): one client alone waits for nobody. `seen` is told of the verdicts of every pass,
    in the order in which they came.
    """

    def __init__(
        self, ask: Callable[[Tensor], Found], limits: Limits, seen: Callable[[Found], None] = lambda _: None
    ) -> None:
        self._ask, self._limits, self._seen = ask, limits, seen
        self._waiting: queue.Queue[_Asked[Found] | None] = queue.Queue()
        self._left: _Asked[Found] | None = None
        self._coming = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="caveat-network", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._waiting.qsize()

    @property
    def working(self) -> bool:
        """Whether a request would be answered."""
        return self._thread.is_alive() and not self._closed

    @contextmanager
    def coming(self) -> Generator[None]:
        """Within, a request is on its way here."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def __call__(self, inputs: Tensor) -> Found:
        """The answers to the inputs of one request.

        Raises
        ------
        RequestError
            If the queue is full, the time is up, or the network cannot answer.
        """
        if len(inputs) > self._limits.batch:
            raise RequestError(422, "too_many", f"expected {self._limits.batch} inputs at most, got {len(inputs)}")
        if self._closed or self.depth >= self._limits.queue:
            raise RequestError(429, "busy", f"{self.depth} requests wait for the network: try again in a second")
        answer: Future[Found] = Future()
        self._waiting.put(_Asked(inputs, answer))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), self._limits.timeout)
        except TimeoutError:
            raise RequestError(504, "timeout", f"no answer within {self._limits.timeout:g} seconds") from None

    def close(self) -> None:
        """Answer all that waits, and stop."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            asked = self._left or self._waiting.get()
            self._left = None
            if asked is None:
                return
            together, stop = self._gathered(asked)
            # those whose client no longer waits are left out
            wanted = [one for one in together if one.answer.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)
            if stop:
                return

    def _gathered(self, first: _Asked[Found]) -> tuple[list[_Asked[Found]], bool]:
        """Requests for one pass, and whether the queue was closed behind them."""
        found, count = [first], len(first.inputs)
        until = time.monotonic() + self._limits.wait
        while count < self._limits.batch:
            left = until - time.monotonic()
            try:
                patient = self._coming > 0 and left > 0
                asked = self._waiting.get(timeout=left) if patient else self._waiting.get_nowait()
            except queue.Empty:
                return found, False
            if asked is None:
                return found, True
            if count + len(asked.inputs) > self._limits.batch:
                self._left = asked
                return found, False
            found.append(asked)
            count += len(asked.inputs)
        return found, False

    def _answer(self, wanted: Sequence[_Asked[Found]]) -> None:
        try:
            verdict = self._ask(torch.cat([one.inputs for one in wanted]) if len(wanted) > 1 else wanted[0].inputs)
        except Exception as error:
            if len(wanted) == 1:
                wanted[0].answer.set_exception(_refusal(error))
                return
            for one in wanted:  # one of them is to blame: the others are answered
                self._answer([one])
            return
        start = 0
        for one in wanted:
            one.answer.set_result(_part(verdict, start, len(one.inputs)))
            start += len(one.inputs)
        try:
            self._seen(verdict)
        except Exception:  # whoever watches must not stop who works
            logging.getLogger(__name__).exception("a batch could not be recorded")


def _refusal(error: Exception) -> RequestError:
    if isinstance(error, CaveatError):
        return RequestError(422, "inputs", str(error))
    logging.getLogger(__name__).error("the network failed", exc_info=error)
    return RequestError(500, "internal", "the network failed; the service's log says why")


def _part(verdict: Found, start: int, count: int) -> Found:
    """Some rows of an answer."""
    if len(verdict) == count:
        return verdict
    cut: dict[str, Any] = {
        field.name: value[start : start + count]
        for field in fields(verdict)
        if isinstance(value := getattr(verdict, field.name), Tensor)
    }
    return replace(verdict, **cut)
