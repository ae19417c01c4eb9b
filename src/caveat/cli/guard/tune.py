"""`caveat guard tune`: another operating point of a guard."""

from pathlib import Path

import typer

NAME = "tune"


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard."),
    keep: float | None = typer.Option(
        None, help="Accept a fresh in-distribution input with at least this probability."
    ),
    max_error: float | None = typer.Option(None, help="Or: at most this share of wrong answers among the accepted."),
) -> None:
    """Set another operating point of a guard; nothing is fitted again."""
    from caveat.cli.guard.fit import show
    from caveat.errors import OptionError
    from caveat.guard import artefact

    if keep is None and max_error is None:
        raise OptionError("--keep, --max-error: expected one of the two")
    show(artefact.tune(guard, keep=keep, max_error=max_error))
