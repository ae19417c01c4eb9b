"""`caveat guard monitor`: has anything changed since the guard was fitted?"""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import typer

from caveat.cli.checks import output_folder
from caveat.cli.terminal import echo

if TYPE_CHECKING:
    from caveat.records.monitor import Watching

NAME = "monitor"


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard, or the .onnx file that it was exported as."),
    verdicts: Path = typer.Argument(
        ...,
        help="Its verdicts in the order of the inputs: a Parquet file of `caveat guard run`, or a folder of such "
        "files, to which new ones may be added.",
    ),
    output: Path = typer.Option(
        Path("monitor"), "-o", "--output", help="Folder for the state, from which the next call goes on, and the page."
    ),
    labels: Path | None = typer.Option(
        None,
        help="Labels as they trickle in: a CSV or Parquet file with the columns index (of the verdict; of several runs "
        "position, its number among all) and label (the class's name), to which rows are added. Without it, the "
        "verdicts' own true_name.",
    ),
    level: float = typer.Option(
        0.01, help="Probability that any alarm is ever raised although nothing has changed, in (0, 1)."
    ),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of the random tie-breaking between equal scores."),
) -> None:
    """Watch a guard at work: are its scores, its abstentions or its errors no longer those it was fitted on?

    May be called after every input; all alarms together are false with a probability of at most --level. Exits with 1
    where an alarm was raised.
    """
    output_folder(output, ("monitor.json", "report.html"))
    from caveat.cli.progress import steps
    from caveat.files import alone
    from caveat.guard import watching
    from caveat.report import monitor as page

    with alone(output), steps() as say:
        found = watching.watch(guard, verdicts, output, labels=labels, level=level, seed=seed, say=say)
        say("writing the page")
        page.write(found, output / "report.html")
    _show(found)
    echo(f"Open {output / 'report.html'} in a browser.")
    if found.state.alarms:
        echo(
            "An alarm stays. Look at the inputs that the page names; where the change is meant, fit the guard again, "
            "with data of now, and watch it with another output folder."
        )
        raise typer.Exit(1)
    again = " ".join(quote(str(place)) for place in (guard, verdicts, "-o", output))
    echo(f"Next, with more verdicts: caveat guard monitor {again}")


def _show(found: "Watching") -> None:
    echo(f"{found.state.seen} verdicts, {found.fresh} of them new; {found.labelled} labels.")
    for sentence in found.sentences:
        echo(sentence)
