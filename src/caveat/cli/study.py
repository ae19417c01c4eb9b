"""`caveat study`: reproduce a published experiment with one command."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.errors import OptionError

if TYPE_CHECKING:
    from caveat.records.findings import Findings

NAME = "study"


def run(
    name: str = typer.Argument(..., help="Name of the study; caveat list studies  prints them."),
    scale: str = typer.Option("small", help="smoke (seconds), small (minutes) or full (as published, or what fits)."),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder; by default runs/NAME-SCALE, and -seed-SEED unless that is 0."
    ),
    seed: int = typer.Option(0, help="First seed; a study of several seeds counts on from it."),
) -> None:
    """Reproduce a published experiment: its figures beside ours, as findings.json and report.html.

    Run it again after an interruption and it resumes: trained networks stay in the folder, which belongs to one scale,
    seed and version of Caveat.
    """
    from typing import get_args

    from caveat.cli.progress import steps
    from caveat.errors import known_name
    from caveat.records.findings import Scale
    from caveat.report import study as page
    from caveat.studies import STUDIES, study

    known_name("study", name, STUDIES)
    chosen: Scale | None = next((one for one in get_args(Scale) if one == scale), None)
    if chosen is None:
        raise OptionError(f"--scale: expected one of {', '.join(get_args(Scale))}, got {scale!r}")
    folder = output or Path("runs") / (f"{name}-{chosen}" + (f"-seed-{seed}" if seed else ""))
    with steps() as say:
        findings = study(name)(folder, scale=chosen, seed=seed, say=say)
        findings.save(folder / "findings.json")
        page.write(findings, folder / "report.html")
    show(findings, folder)


def show(findings: "Findings", folder: Path) -> None:
    """Print claims and tables, and where the rest is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from caveat.report.study import VERDICTS, ours

    console = Console()
    for table in findings.tables:
        shown = Table(table.first, title=table.title, caption=table.note or None)
        for column in table.columns:
            shown.add_column(escape(column), justify="right")
        for row in table.rows:
            shown.add_row(
                escape(row.label),
                *(
                    ours(cell, table.digits) + (f"\n[dim]{escape(cell.published)}[/dim]" if cell.published else "")
                    for cell in row.cells
                ),
            )
        console.print(shown)
    for claim in findings.claims:
        console.print(f"[bold]{VERDICTS[claim.verdict]}[/bold]: {escape(claim.claim)}. {escape(claim.found)}")
    console.print("The second line of a cell is the published figure.", style="dim")
    console.print(f"Next: open {folder / 'report.html'} in a browser; every number is in {folder / 'findings.json'}.")
