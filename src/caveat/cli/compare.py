"""`caveat compare`: several records side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from caveat.audits.record import Record
    from caveat.report import differences

NAME = "compare"


def run(
    records: list[Path] = typer.Argument(..., help="Two to six record.json of audits; the first is the reference."),
    output: Path = typer.Option(Path("compare.html"), "-o", "--output", help="Where to write the page."),
) -> None:
    """Hold audits against each other: what differs, and is it more than noise? Writes one page."""
    from caveat.audits.record import Record
    from caveat.report.compare import write

    loaded = {name: Record.load(path) for name, path in zip(names(records), records, strict=True)}
    write(loaded, output)
    show(loaded)
    typer.echo(f"Open {output} in a browser.")


def names(paths: Sequence[Path]) -> list[str]:
    """What to call the records: by their folder if the file is `record.json`, by the file else; by path if two clash.

    Raises
    ------
    OptionError
        If a record is given twice.
    """
    from caveat.errors import OptionError

    if twice := next((path for path in paths if list(paths).count(path) > 1), None):
        raise OptionError(f"records: expected every record once, got {twice} twice")
    short = [(path.parent.name if path.stem == "record" else "") or path.stem for path in paths]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def show(records: "dict[str, Record]") -> None:
    """Print what differs most, and what cannot be compared."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from caveat.report.compare import VERDICTS
    from caveat.report.differences import apart
    from caveat.report.shown import BARE, THIN, Name, shown, signed

    styles = {"better": "[green]{}[/green]", "worse": "[red]{}[/red]"}
    table = Table(title="Side by side", caption="clear: the 95 % intervals do not overlap")
    table.add_column("")
    for name in records:
        table.add_column(escape(name), justify="right", overflow="fold")
    for row in _rows(records):
        kind = BARE.get(row.kind, row.kind)
        cells: list[str] = []
        for cell in row.cells:
            if cell.value is None:
                cells.append("-")
                continue
            text = shown(cell.value.value, row.kind).replace(THIN, " ") + (f" {cell.score}" if cell.score else "")
            text = escape(text)
            if cell.verdict and cell.change is not None:
                told = f"{signed(cell.change, kind)} {VERDICTS[cell.verdict]}"
                text += "\n" + styles.get(cell.verdict, "[dim]{}[/dim]").format(told)
            cells.append(text)
        on = f" on {row.unknown}" if row.unknown else ""
        about = "" if row.about == "none" else f", {row.about}"
        table.add_row(escape(f"{row.metric}{on}{about}"), *cells)
    console = Console()
    console.print(table)
    for line in apart(records):
        words = "".join(part.text if isinstance(part, Name) else str(part) for part in line)
        console.print(f"[yellow]note[/yellow] {escape(words)}")


def _rows(records: "dict[str, Record]") -> "list[differences.Row]":
    from caveat.report.differences import key_rows, known_rows

    calibrated = [row for row in known_rows(records) if row.metric == "ECE" and row.about != "none"]
    return [*key_rows(records), *calibrated]
