"""`caveat audit`: a model and its data to a record and a report."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.errors import OptionError

if TYPE_CHECKING:
    from caveat.audits.record import Record

NAME = "audit"
DATA = "mnist, cifar10:test+grey+28x28, folder:path, parquet:path, npz:path, hf:org/name:split, noise:uniform, ..."


def run(
    model: str = typer.Option(
        ..., help="package.module:callable (returns an nn.Module), or hf:name for an image classifier of transformers."
    ),
    test: str = typer.Option(..., help=f"Known data the model was not trained on: {DATA}"),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for report, record and observations."),
    weights: Path | None = typer.Option(None, help="Weights of the model, as safetensors."),
    fit: str | None = typer.Option(None, help="Training data, to fit the scores on."),
    unknown: list[str] = typer.Option(
        [], metavar="NAME=SOURCE", help="Inputs of no class; give it any number of times."
    ),
    score: list[str] = typer.Option([], help="Only this score; give it any number of times. All by default."),
    calibration: list[str] = typer.Option([], help="Only this calibration; likewise."),
    head: str | None = typer.Option(None, help="Layer that produces the logits; found by itself by default."),
    tune: float = typer.Option(0.2, help="Share of the test set that is set aside to fit calibrations."),
    replicas: int = typer.Option(200, help="Bootstrap replicas behind every interval."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    batch: int = typer.Option(256, help="Inputs per forward pass."),
) -> None:
    """Audit a network: may its answers be trusted, and which? Writes report.html and record.json.

    Data are named as in  caveat list data , with modifiers: +grey +rgb +28x28 +invert +only=7 +without=9 +first=1000.
    """
    from caveat import data
    from caveat.cli import model as models

    network = models.load(model, weights)
    known = data.load(test, batch=batch, seed=seed)
    unknowns = {name: data.load(source, batch=batch, seed=seed, like=known) for name, source in map(_named, unknown)}
    if len(unknowns) < len(unknown):
        raise OptionError("--unknown: expected every name once")
    from caveat.audits.run import audit
    from caveat.cli.progress import steps

    with steps() as say:
        record = audit(
            network,
            known,
            fit=None if fit is None else data.load(fit, batch=batch, seed=seed),
            unknown=unknowns,
            scores=score or None,
            calibrations=calibration or None,
            head=head,
            tune=tune,
            replicas=replicas,
            seed=seed,
            folder=output,
            made_by=model,
            say=say,
        )
        say("writing the report")
        write(record, output)
    show(record, output)


def _named(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise OptionError(f"--unknown: expected NAME=SOURCE, got {text!r}")
    return name, source


def write(record: "Record", folder: Path) -> None:
    """Write record and report; each appears only when it is whole."""
    from caveat.report.page import write as write_page

    record.save(folder / "record.json")
    write_page(record, folder / "report.html")


def show(record: "Record", folder: Path) -> None:
    """Print what matters most, and what to do next."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    plain = record.calibrations[0].summary
    console.print(
        f"\n[bold]{record.model}[/bold] on {record.sets[0].source}: accuracy {plain.accuracy.value:.1%} "
        f"({plain.accuracy.low:.1%} to {plain.accuracy.high:.1%}), mean confidence {plain.mean_confidence:.1%}, "
        f"ECE {plain.ece.value:.4f}"
        + "".join(f", {c.summary.ece.value:.4f} after {c.name} scaling" for c in record.calibrations[1:])
    )
    unknown = [s.name for s in record.sets if s.role == "unknown"]
    table = Table(title="AUROC of each score, in %", caption="50 is chance, 100 perfect; intervals are in the report")
    table.add_column("score", no_wrap=True)
    table.add_column("own errors", justify="right")
    for name in unknown:
        table.add_column(name, justify="right", overflow="fold")
    found = {(d.score, d.unknown): d for d in record.detections}
    errors = {s.score: s for s in record.selective}
    for score in record.scores:
        wrong = f"{100 * errors[score.name].auroc.value:.1f}" if score.name in errors else "-"
        cells = [found[score.name, name] for name in unknown]
        table.add_row(score.name, wrong, *(f"{100 * d.auroc.value:.1f}" for d in cells))
    console.print(table)
    for note in record.notes:
        console.print(f"[yellow]note[/yellow] {note}")
    console.print(
        f"Open [bold]{folder / 'report.html'}[/bold] in a browser; all numbers are in {folder / 'record.json'}."
    )
