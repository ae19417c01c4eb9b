"""What a long command is doing, on the terminal's last line."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.text import Text

from caveat.cli.terminal import console, text

__all__ = ["counted", "steps"]

OFTEN = 10.0
"""Seconds between lines that say how far a command is, where they stay."""


@contextmanager
def steps() -> Generator[Callable[[str], None]]:
    """Give a function to call with each step's name: a spinner on a terminal, a line each elsewhere."""
    shown = console(stderr=True)
    started = time.perf_counter()

    def stamped(step: str) -> Text:
        return text((f"{time.perf_counter() - started:6.1f} s", "dim"), f"  {step}")

    if not shown.is_terminal:
        yield lambda step: shown.print(stamped(step), soft_wrap=True)
        return
    with shown.status("") as status:

        def say(step: str) -> None:
            shown.print(stamped(step))
            status.update(text(step))

        yield say


@contextmanager
def counted(total: int, done: int = 0) -> Generator[Callable[[int], None]]:
    """Give a function to call with how many inputs were answered: shows how many there are, their rate and the time
    left. `done` of the `total` were answered by an earlier run, and say nothing of the rate.
    """
    shown = console(stderr=True)
    started = said = time.perf_counter()
    now = done

    def line() -> Text:
        rate = (now - done) / max(time.perf_counter() - started, 1e-9)
        left = (total - now) / max(rate, 1e-9)
        return text(f"{now:,} of {total:,} inputs, {rate:,.0f} a second, {_duration(left)} left")

    if not shown.is_terminal:

        def log(count: int) -> None:
            nonlocal now, said
            now += count
            if time.perf_counter() - said >= OFTEN:
                said = time.perf_counter()
                shown.print(line(), soft_wrap=True)

        yield log
        return
    with shown.status("") as status:

        def show(count: int) -> None:
            nonlocal now
            now += count
            status.update(line())

        yield show


def _duration(seconds: float) -> str:
    """For people: `3 h 05 min`, `4 min 20 s`, `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
