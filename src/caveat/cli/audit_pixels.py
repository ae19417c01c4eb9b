"""`caveat audit-pixels`: a segmentation network and street scenes to a record and a report."""

import re
from pathlib import Path

import typer

from caveat.errors import OptionError

NAME = "audit-pixels"


def run(
    model: str = typer.Option(
        ..., help="package.module:callable (returns an nn.Module that gives logits for every pixel)."
    ),
    test: str = typer.Option(..., help="camvid, street_hazards or bdd_anomaly, with :SPLIT; the split is test."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for report and record."),
    weights: Path | None = typer.Option(None, help="Weights of the model, as safetensors."),
    root: Path | None = typer.Option(None, help="Folder of the set; by default below CAVEAT_DATA."),
    ood: list[str] = typer.Option(
        [], help="Class that the model was not taught; any number of times. By default those of the set."
    ),
    size: str | None = typer.Option(None, help="HEIGHTxWIDTH that pictures and maps are brought to."),
    posterior: Path | None = typer.Option(None, help="Ensemble or dropout, as caveat.posteriors.save wrote it."),
    dropout: bool = typer.Option(False, help="Audit many networks: the model's own dropout stays on."),
    draws: int | None = typer.Option(None, help="How many networks; 20 by default, an ensemble's members."),
    score: list[str] = typer.Option([], help="Only this score; any number of times."),
    scenes: int = typer.Option(4, help="Pictures shown with their maps."),
    replicas: int = typer.Option(200, help="Bootstrap replicas behind every interval."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    batch: int = typer.Option(4, help="Pictures per forward pass."),
    classes: bool = typer.Option(False, "--classes", help="Print the classes the model must have, and leave."),
) -> None:
    """Audit a segmentation network pixel by pixel: mistakes, calibration, OOD objects. Writes report.html.

    Pixels are streamed: what is kept does not grow with the number of pictures. The model's classes are the set's,
    without the OOD ones, in the set's order.
    """
    from caveat.audits.dense.audit import audit_dense
    from caveat.cli import model as models
    from caveat.cli.audit import show, write
    from caveat.cli.progress import steps
    from caveat.data.segmentation import SETS
    from caveat.errors import known_name

    name, _, split = test.partition(":")
    opener = SETS[known_name("--test", name, SETS)]
    options = {"ood": tuple(ood)} if ood else {}
    set_ = opener(split or "test", root=root, size=_size(size), batch=batch, **options)
    if classes:
        typer.echo(", ".join(set_.classes))
        return
    network = models.many(
        models.load(model, weights), posterior=posterior, dropout=dropout, draws=draws, seed=seed, training=None
    )
    with steps() as say:
        record = audit_dense(network, set_, scores=score or None, scenes=scenes, replicas=replicas, seed=seed, say=say)
        say("writing the report")
        write(record, output)
    show(record, output)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if match is None:
        raise OptionError(f"--size: expected HEIGHTxWIDTH like 180x240, got {text!r}")
    return int(match[1]), int(match[2])
