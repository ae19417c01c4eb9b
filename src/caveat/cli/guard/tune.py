"""`caveat guard tune`: another threshold of a guard."""

from pathlib import Path

import typer

from caveat.cli.checks import share

NAME = "tune"


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard."),
    keep: float | None = typer.Option(
        None,
        help="Share of new in-distribution inputs that is accepted at least, for instance 0.95 (true positive rate).",
    ),
    max_error: float | None = typer.Option(
        None,
        help="Or: share of wrong predictions among the accepted ones at most (selective risk), with 95 % confidence.",
    ),
    each_class: bool = typer.Option(False, "--each-class", help="--keep is guaranteed for the inputs of every class."),
) -> None:
    """Set another threshold of a guard; nothing is fitted again."""
    from caveat.cli.guard.fit import show
    from caveat.errors import OptionError
    from caveat.guard import artefact, stored

    if keep is None and max_error is None:
        raise OptionError("--keep, --max-error: expected one of the two, got none")
    share("--keep", keep)
    share("--max-error", max_error)
    if (task := stored.task_of(guard)) != "classification":
        from caveat.cli.guard import multilabel, regression

        regression.refuse({"--each-class": each_class}, task=task)
        return {"regression": regression, "multilabel": multilabel}[task].tune(guard, keep=keep, max_error=max_error)
    return show(artefact.tune(guard, keep=keep, max_error=max_error, each_class=each_class))
