"""What a long command is doing, on the terminal's last line."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console

__all__ = ["steps"]


@contextmanager
def steps() -> Generator[Callable[[str], None]]:
    """Give a function to call with each step's name: a spinner on a terminal, a line each elsewhere."""
    console = Console(stderr=True)
    started = time.perf_counter()

    def stamped(text: str) -> str:
        return f"[dim]{time.perf_counter() - started:6.1f} s[/dim]  {text}"

    if not console.is_terminal:
        yield lambda text: console.print(stamped(text))
        return
    with console.status("") as status:

        def say(text: str) -> None:
            console.print(stamped(text))
            status.update(text)

        yield say
