"""`caveat audit-pixels`: a segmentation network and street scenes to a record and a report."""

import re
from dataclasses import replace
from pathlib import Path

import typer

from caveat.cli.checks import existing, output_folder
from caveat.cli.options import DEVICE, DTYPE, NORMALIZE, WEIGHTS_KEY, WORKERS
from caveat.cli.terminal import echo
from caveat.errors import OptionError

NAME = "audit-pixels"
OWN = ("report.html", "record.json")


def run(
    model: str | None = typer.Option(
        None, help="package.module:callable (returns an nn.Module that gives logits (n, c, h, w), for every pixel)."
    ),
    test: str = typer.Option(
        ...,
        metavar="SET[:SPLIT]|pairs:FOLDER",
        help="Labelled scenes: camvid, street_hazards or bdd_anomaly (the split is test unless given), or a folder of "
        "one's own with images/, labels/ (.png maps of class numbers, 255 is void) and classes.txt (a class a line).",
    ),
    output: Path | None = typer.Option(None, "-o", "--output", help="Folder for report.html and record.json."),
    weights: Path | None = typer.Option(
        None, help="Weights of the model: safetensors, or a file of torch.save (.pth, .pt, .ckpt, .bin, ...)."
    ),
    weights_key: str | None = WEIGHTS_KEY,
    normalize: str | None = NORMALIZE,
    root: Path | None = typer.Option(None, help="Folder of the set; by default below the folder CAVEAT_DATA."),
    ood: list[str] = typer.Option(
        [],
        metavar="CLASS",
        help="Class that is out of distribution: the model was not taught it. Repeatable; by default those of the set.",
    ),
    size: str | None = typer.Option(
        None, metavar="HEIGHTxWIDTH", help="Size that pictures and label maps are resized to."
    ),
    posterior: Path | None = typer.Option(
        None, help="Ensemble or other posterior, as caveat.posteriors.save writes it: audit its mean prediction."
    ),
    dropout: bool = typer.Option(
        False, "--dropout", help="The same with MC dropout: the dropout of the model stays on."
    ),
    draws: int | None = typer.Option(
        None, min=1, help="Number of posterior samples (20 by default), or of the ensemble's members used (all)."
    ),
    score: list[str] = typer.Option([], help="Only this score (caveat list scores); repeatable."),
    scenes: int = typer.Option(4, min=0, help="Number of pictures shown with their maps of uncertainty."),
    replicas: int = typer.Option(200, min=1, help="Simulated data sets behind the confidence interval of the ECE."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of every random choice."),
    batch: int = typer.Option(4, min=1, help="Batch size of the forward passes."),
    device: str = DEVICE,
    dtype: str = DTYPE,
    workers: int = WORKERS,
    classes: bool = typer.Option(False, "--classes", help="Print the classes that the model must have, and leave."),
) -> None:
    """Audit a segmentation network: misclassified pixels, calibration, OOD objects, in one report.

    Pixels are streamed, in constant memory. The model's classes are those of the set without the OOD ones, in the
    order of the set (--classes prints them).
    """
    if not classes and (model is None or output is None):
        raise OptionError(f"{'--model' if model is None else '-o'}: it is missing; only --classes needs none")
    if output is not None:
        output_folder(output, OWN)
    shape = _size(size)
    existing("--weights", weights)
    existing("--posterior", posterior)
    from caveat import devices
    from caveat.audits.dense.audit import audit_dense
    from caveat.cli import model as models
    from caveat.cli.audit import show, write
    from caveat.cli.progress import steps
    from caveat.data.segmentation import SETS, open_pairs
    from caveat.errors import known_name

    devices.check(device, dtype)
    name, _, split = test.partition(":")
    options = {"ood": tuple(ood)} if ood else {}
    if name == "pairs":
        if root is not None or not split:
            raise OptionError("--test: expected pairs:FOLDER, without --root")
        set_ = open_pairs(Path(split), size=shape, batch=batch, **options)
    else:
        opener = SETS[known_name("--test", name, (*SETS, "pairs"))]
        set_ = opener(split or "test", root=root, size=shape, batch=batch, **options)
    if classes or model is None or output is None:
        echo(", ".join(set_.classes))
        return
    told: list[str] = []
    network = models.posterior(
        models.load(model, weights, key=weights_key, normalize=normalize, say=told.append),
        posterior,
        dropout=dropout,
        draws=draws,
        seed=seed,
        training=None,
    )
    with steps() as say:
        record = audit_dense(
            network, replace(set_, workers=workers), scores=score or None, scenes=scenes, replicas=replicas, seed=seed,
            say=say, device=device, dtype=dtype,
        )  # fmt: skip
        say("writing the report")
        record = record.model_copy(update={"notes": [*told, *record.notes]})
        write(record, output)
    show(record, output)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if match is None:
        raise OptionError(f"--size: expected HEIGHTxWIDTH like 180x240, got {text!r}")
    return int(match[1]), int(match[2])
