"""A progress bar, where somebody can see it."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from caveat.training.history import Totals

__all__ = ["Report", "shown"]

Report: TypeAlias = Callable[[int, Totals], None]
"""Called after each step with the epoch's number, from 0, and its sums."""


@contextmanager
def shown(epochs: int, steps: int | None, *, wanted: bool) -> Generator[Report]:
    """A bar on standard error, if that is a terminal; nothing otherwise. `steps` an epoch, if known."""
    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda epoch, totals: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # what is printed goes above the bar on a terminal, and into a file that it was redirected to
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("training", total=steps and steps * epochs)

        def report(epoch: int, totals: Totals) -> None:
            done = epoch * steps + totals.steps if steps else totals.steps
            accuracy = f", right {totals.correct / totals.judged:.1%}" if totals.judged else ""
            text = f"epoch {epoch + 1}/{epochs}: loss {totals.loss / totals.samples:.4f}{accuracy}"
            bar.update(task, completed=done, description=text)

        yield report
