"""What a long command is doing, on the terminal's last line."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.text import Text

from caveat.cli.terminal import console, text

__all__ = ["steps"]


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
