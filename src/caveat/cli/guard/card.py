"""`caveat guard card`: a model card of a guard."""

from pathlib import Path

import typer

from caveat.cli.checks import output_file
from caveat.cli.terminal import echo

NAME = "card"


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard."),
    output: Path = typer.Option(Path("card.md"), "-o", "--output", help="Markdown file for the card."),
) -> None:
    """Write a model card: guarantee, accuracy and samples it rests on, limits, versions and hashes of the files."""
    output_file("-o", output, (".md",))
    from caveat.guard import card
    from caveat.guard.tasks import artefact_of

    card.check_output(output)
    card.write(artefact_of(guard).card(guard), output)
    echo(f"{output}: what {guard} guarantees, what that rests on, and its limits.")
