"""`caveat report`: a record, or what a study found, to its page."""

from pathlib import Path

import typer

NAME = "report"


def run(
    record: Path = typer.Argument(..., help="The record.json of an audit, or the findings.json of a study."),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="Where to write the page."),
) -> None:
    """Make the interactive page of an audit from its record, or of a study from its findings."""
    from caveat.files import read_json
    from caveat.records.findings import Findings
    from caveat.records.record import Record
    from caveat.report import page, study

    read = read_json(record, name="record")
    if isinstance(read, dict) and "study" in read:
        study.write(Findings.load(record), output)
    else:
        page.write(Record.load(record), output)
    typer.echo(f"Open {output} in a browser.")
