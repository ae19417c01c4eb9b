"""`caveat compare`: several records side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.cli.checks import output_file
from caveat.cli.terminal import Styled, echo, table, text
from caveat.errors import OptionError

if TYPE_CHECKING:
    from rich.text import Text

    from caveat.records.record import Record
    from caveat.report import differences

NAME = "compare"


def run(
    records: list[Path] = typer.Argument(
        ..., help="Two to six folders of audits, or their record.json; the first is the reference."
    ),
    output: Path = typer.Option(Path("compare.html"), "-o", "--output", help="Where to write the page."),
) -> None:
    """Compare audits side by side: which figures differ by more than their confidence intervals? Writes one page."""
    output_file("-o", output, (".html", ".htm"))
    from caveat.records.record import Record
    from caveat.report.compare import write

    loaded = {name: Record.load(path) for name, path in zip(names(records), records, strict=True)}
    write(loaded, output)
    show(loaded)
    echo(f"Open {output} in a browser.")


def names(paths: Sequence[Path]) -> list[str]:
    """What to call the records: by their folder, or by the file if it is not `record.json`; by path if two clash.

    Raises
    ------
    OptionError
        If a record is given twice.
    """
    files = [(path / "record.json" if path.is_dir() else path).resolve() for path in paths]
    if twice := next((path for path, file in zip(paths, files, strict=True) if files.count(file) > 1), None):
        raise OptionError(f"records: expected every record once, got {twice} twice")
    folders = [path.resolve().name if path.is_dir() else path.parent.name for path in paths]
    short = [
        (folder if file.stem == "record" else "") or file.stem for file, folder in zip(files, folders, strict=True)
    ]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def show(records: "dict[str, Record]") -> None:
    """Print what differs most, and what cannot be compared."""
    from caveat.report.differences import apart
    from caveat.report.shown import Name

    rows: list[Sequence[str | Text]] = []
    for row in _rows(records):
        on = f" on {row.ood}" if row.ood else ""
        about = "" if row.about == "none" else f", {row.about}"
        rows.append([f"{row.metric}{on}{about}", *(text(*_told(row, cell)) for cell in row.cells)])
    table(
        "Side by side",
        ["", *records],
        rows,
        caption="clear: the 95 % confidence intervals do not overlap",
        numbers=True,
    )
    for line in apart(records):
        echo(("note", "yellow"), " ", *(part.text if isinstance(part, Name) else str(part) for part in line))


def _told(row: "differences.Row", cell: "differences.Cell") -> list[Styled]:
    """A figure, and below it how it stands to the first record's."""
    from caveat.report.compare import VERDICTS
    from caveat.report.shown import BARE, THIN, shown, signed

    if cell.value is None:
        return ["-"]
    figure = shown(cell.value.value, row.kind).replace(THIN, " ") + (f" {cell.score}" if cell.score else "")
    if cell.verdict is None or cell.change is None:
        return [figure]
    style = {"better": "green", "worse": "red"}.get(cell.verdict, "dim")
    change = signed(cell.change, BARE.get(row.kind, row.kind))
    return [figure, "\n", (f"{change} {VERDICTS[cell.verdict]}", style)]


def _rows(records: "dict[str, Record]") -> "list[differences.Row]":
    from caveat.report.differences import key_rows, known_rows

    calibrated = [row for row in known_rows(records) if row.metric == "ECE" and row.about != "none"]
    return [*key_rows(records), *calibrated]
