"""`caveat report`: a record to its page."""

from pathlib import Path

import typer

NAME = "report"


def run(
    record: Path = typer.Argument(..., help="The record.json of an audit."),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="Where to write the page."),
) -> None:
    """Make the interactive page of an audit from its record."""
    from caveat.audits.record import Record
    from caveat.report.page import write

    write(Record.load(record), output)
    typer.echo(f"Open {output} in a browser.")
