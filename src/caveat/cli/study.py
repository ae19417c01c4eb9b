"""`caveat study`: reproduce a published experiment with one command."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.cli.checks import output_folder
from caveat.cli.terminal import echo, table, text
from caveat.errors import OptionError

if TYPE_CHECKING:
    from caveat.records.findings import Findings

NAME = "study"


def run(
    name: str = typer.Argument(..., help="Name of the study: one of  caveat list studies."),
    scale: str = typer.Option(
        "small",
        help="Size of the experiment: smoke (seconds), small (minutes) or full (as published, or what one machine "
        "allows).",
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder; by default runs/NAME-SCALE, and -seed-SEED unless that is 0."
    ),
    seed: int = typer.Option(
        0, min=0, max=2**63 - 1, help="First seed; a study of several seeds uses the following ones, too."
    ),
) -> None:
    """Reproduce a published experiment: published figures beside ours, in findings.json and report.html.

    Run it again after an interruption and it resumes: trained networks stay in the folder, which belongs to one scale,
    seed and version of Caveat.
    """
    from typing import get_args

    from caveat.cli.progress import steps
    from caveat.errors import known_name
    from caveat.files import alone
    from caveat.records.findings import Scale
    from caveat.report import study as page
    from caveat.studies import STUDIES, study

    known_name("study", name, STUDIES)
    chosen: Scale | None = next((one for one in get_args(Scale) if one == scale), None)
    if chosen is None:
        raise OptionError(f"--scale: expected one of {', '.join(get_args(Scale))}, got {scale!r}")
    folder = output or Path("runs") / (f"{name}-{chosen}" + (f"-seed-{seed}" if seed else ""))
    output_folder(folder, ("findings.json", "report.html"))
    with alone(folder), steps() as say:
        findings = study(name)(folder, scale=chosen, seed=seed, say=say)
        findings.save(folder / "findings.json")
        page.write(findings, folder / "report.html")
    show(findings, folder)


def show(findings: "Findings", folder: Path) -> None:
    """Print claims and tables, and where the rest is."""
    from caveat.report.study import VERDICTS, ours

    for one in findings.tables:
        table(
            one.title,
            [one.first, *one.columns],
            [
                [
                    row.label,
                    *(
                        text(ours(cell, one.digits), *(("\n", (cell.published, "dim")) if cell.published else ()))
                        for cell in row.cells
                    ),
                ]
                for row in one.rows
            ],
            caption=one.note or None,
            numbers=True,
        )
    for claim in findings.claims:
        echo((VERDICTS[claim.verdict], "bold"), f": {claim.claim}. {claim.found}")
    echo(("The second line of a cell is the published figure.", "dim"))
    echo(f"Next: open {folder / 'report.html'} in a browser; every number is in {folder / 'findings.json'}.")
