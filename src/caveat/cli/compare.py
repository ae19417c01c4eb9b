"""`caveat compare`: several records side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from caveat.records.record import Record
    from caveat.report import differences

NAME = "compare"


def run(
    records: list[Path] = typer.Argument(
        ..., help="Two to six folders of audits, or their record.json; the first is the reference."
    ),
    output: Path = typer.Option(Path("compare.html"), "-o", "--output", help="Where to write the page."),
) -> None:
    """Hold audits against each other: what differs, and is it more than noise? Writes one page."""
    from caveat.errors import check_suffix

    check_suffix("-o", output.name, (".html", ".htm"))
    from caveat.records.record import Record
    from caveat.report.compare import write

    loaded = {name: Record.load(path) for name, path in zip(names(records), records, strict=True)}
    write(loaded, output)
    show(loaded)
    typer.echo(f"Open {output} in a browser.")


def names(paths: Sequence[Path]) -> list[str]:
    """What to call the records: by their folder, or by the file if it is not `record.json`; by path if two clash.

    Raises
    ------
    OptionError
        If a record is given twice.
    """
    from caveat.errors import OptionError

    files = [path / "record.json" if path.is_dir() else path for path in paths]
    if twice := next((path for path, file in zip(paths, files, strict=True) if files.count(file) > 1), None):
        raise OptionError(f"records: expected every record once, got {twice} twice")
    folders = [path.resolve().name if path.is_dir() else path.parent.name for path in paths]
    short = [
        (folder if file.stem == "record" else "") or file.stem for file, folder in zip(files, folders, strict=True)
    ]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def show(records: "dict[str, Record]") -> None:
    """Print what differs most, and what cannot be compared."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from caveat.report.differences import apart
    from caveat.report.shown import Name

    table = Table(title="Side by side", caption="clear: the 95 % intervals do not overlap")
    table.add_column("")
    for name in records:
        table.add_column(escape(name), justify="right", overflow="fold")
    for row in _rows(records):
        on = f" on {row.ood}" if row.ood else ""
        about = "" if row.about == "none" else f", {row.about}"
        table.add_row(escape(f"{row.metric}{on}{about}"), *(_told(row, cell) for cell in row.cells))
    console = Console()
    console.print(table)
    for line in apart(records):
        words = "".join(part.text if isinstance(part, Name) else str(part) for part in line)
        console.print(f"[yellow]note[/yellow] {escape(words)}")


def _told(row: "differences.Row", cell: "differences.Cell") -> str:
    """A figure, and below it how it stands to the first record's."""
    from rich.markup import escape

    from caveat.report.compare import VERDICTS
    from caveat.report.shown import BARE, THIN, shown, signed

    if cell.value is None:
        return "-"
    text = shown(cell.value.value, row.kind).replace(THIN, " ") + (f" {escape(cell.score)}" if cell.score else "")
    if cell.verdict is None or cell.change is None:
        return text
    style = {"better": "green", "worse": "red"}.get(cell.verdict, "dim")
    change = signed(cell.change, BARE.get(row.kind, row.kind))
    return f"{text}\n[{style}]{change} {VERDICTS[cell.verdict]}[/{style}]"


def _rows(records: "dict[str, Record]") -> "list[differences.Row]":
    from caveat.report.differences import key_rows, known_rows

    calibrated = [row for row in known_rows(records) if row.metric == "ECE" and row.about != "none"]
    return [*key_rows(records), *calibrated]
