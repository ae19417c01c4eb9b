"""`caveat report`: a record, or what a study found, to its page."""

from pathlib import Path

import typer

from caveat.cli.checks import output_file
from caveat.cli.terminal import echo

NAME = "report"


def run(
    record: Path = typer.Argument(
        ..., help="Folder of an audit, or its record.json; or folder of a study, or its findings.json."
    ),
    output: Path = typer.Option(Path("report.html"), "-o", "--output", help="Where to write the page."),
    name: str | None = typer.Option(None, help="Title of an audit's page; by default the record's, or the model."),
) -> None:
    """Write the page of an audit from its record.json, or of a study from its findings.json."""
    from caveat.errors import OptionError
    from caveat.files import read_json
    from caveat.records.base import task_of
    from caveat.records.findings import Findings
    from caveat.records.multilabel import MultilabelRecord
    from caveat.records.record import Record
    from caveat.records.regression import RegressionRecord
    from caveat.report import study

    output_file("-o", output, (".html", ".htm"))
    if record.is_dir() and not (record / "record.json").exists() and (record / "findings.json").exists():
        record = record / "findings.json"
    read = None if record.is_dir() else read_json(record, name="record")
    if isinstance(read, dict) and "study" in read:
        if name is not None:
            raise OptionError(f"--name: expected an audit, but {record} is of a study, which has a title of its own")
        study.write(Findings.load(record), output)
    else:
        place = record / "record.json" if record.is_dir() else record
        kinds = {"regression": RegressionRecord, "multilabel": MultilabelRecord}
        found = kinds.get(task_of(read_json(place, name="record")), Record).load(record)
        found.model_copy(update={} if name is None else {"name": name}).report(output)
    echo(f"Open {output} in a browser.")
