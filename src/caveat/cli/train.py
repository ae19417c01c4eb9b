"""`caveat train`: a network from data, with a loop that can be interrupted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from caveat.errors import DataError

if TYPE_CHECKING:
    from torch import nn

    from caveat.data.source import Source
    from caveat.training import History

NAME = "train"


def run(
    model: str = typer.Option(..., help="package.module:callable, for instance caveat.models:lenet"),
    data: str = typer.Option(..., help="Training data, for instance mnist:train"),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for weights and checkpoint."),
    weights: Path | None = typer.Option(None, help="Start from these weights (safetensors), to train on."),
    epochs: int = typer.Option(5, help="Passes over the training data."),
    optimizer: str = typer.Option("adam", help="adam, or sgd (Nesterov momentum 0.9)."),
    rate: float = typer.Option(1e-3, help="Highest learning rate; it rises and falls in one cycle."),
    decay: float = typer.Option(0.0, help="L2 penalty of the weights."),
    batch: int = typer.Option(128, help="Inputs per step."),
    augment: bool = typer.Option(False, help="Random crops and horizontal flips."),
    seed: int = typer.Option(0, help="Seed of weights, order and augmentation."),
    objective: str = typer.Option(
        "cross_entropy", help="What is minimised: a name of  caveat list objectives , with options as acet(steps=10)."
    ),
    outliers: str | None = typer.Option(
        None, help="Inputs of no class that the objective shows: for outlier_exposure."
    ),
    warm_up: int = typer.Option(
        0, help="Epochs at weight 0.001 first, for a network that learns nothing at the full weight."
    ),
    test: str | None = typer.Option(None, help="Data to audit the network on at the end; by default the test split."),
    ood: list[str] = typer.Option([], metavar="NAME=SOURCE", help="Inputs of no class, for the audit."),
    audit: bool = typer.Option(True, help="End with an audit of the network."),
    track: list[str] = typer.Option(
        [],
        help="Track the weights' distribution: tradi, swag or snapshots; any number of times. Writes NAME.safetensors.",
    ),
    members: int = typer.Option(1, help="Train so many networks of different seeds: writes ensemble.safetensors too."),
) -> None:
    """Train a classifier, then audit it. Run it again after an interruption and it goes on where it was.

    Writes model.safetensors, checkpoint.safetensors, history.csv and, with an audit, audit/report.html.
    """
    import torch

    from caveat import data as sources
    from caveat import posteriors
    from caveat.cli import model as models
    from caveat.errors import known_name
    from caveat.training import recipe, run_folder

    for name in track:
        known_name("--track", name, posteriors.FROM_TRAINING)
    training = sources.load(data, seed=seed)
    shown = None if outliers is None else sources.load(outliers, like=training, seed=seed)
    goal = recipe.objective(objective, outliers=shown)
    judged = _judged(test or _test_split(data), ood, seed) if audit else None  # a typo there must not cost a training
    recipe.check(optimizer=optimizer, warm=warm_up, epochs=epochs, goal=goal)
    models.load(model, weights, seed=seed)  # what cannot be trained must leave no folder behind
    begun = {
        "model": model, "weights": _file_hash(weights), "data": data, "contents": run_folder.digest(training),
        "epochs": epochs, "optimizer": optimizer, "rate": rate, "decay": decay, "batch": batch, "augment": augment,
        "seed": seed, "objective": objective, "outliers": outliers, "warm_up": warm_up, "track": sorted(track),
    }  # fmt: skip
    if run_folder.claim(output, begun):
        typer.echo("Another number of epochs is another cycle of the learning rate: the training begins anew.")

    def one(number: int, checkpoint: Path, watch: Sequence[str] = ()) -> "tuple[nn.Module, History, dict[str, Any]]":
        network = models.load(model, weights, seed=number)
        return network, *recipe.train(
            network,
            training,
            epochs=epochs,
            optimizer=optimizer,
            rate=rate,
            decay=decay,
            batch=batch,
            augment=augment,
            generator=torch.Generator().manual_seed(number),
            checkpoint=checkpoint,
            track=watch,
            goal=goal,
            warm=warm_up,
            log=recipe.logged(checkpoint.parent) if number == seed else None,
        )

    network, history, tracked = one(seed, output / "checkpoint.safetensors", track)
    recipe.save_weights(network, output / "model.safetensors")
    for name, posterior in tracked.items():
        posteriors.save(posterior, output / f"{name}.safetensors")
    if members > 1:
        tracked = {"ensemble": _ensemble(network, lambda k, place: one(k, place)[0], seed, members, output), **tracked}
    _show(history)
    posterior = next((output / f"{name}.safetensors" for name in tracked), None)
    if judged is not None:
        many = models.many(network.eval(), posterior=posterior, dropout=False, draws=None, seed=seed, training=training)
        return _audited(many, training, judged, output / "audit", model, seed)
    return typer.echo(
        f"Next: caveat audit --model '{model}' --weights {output / 'model.safetensors'} --train '{data}' --test "
        f"'{test or _test_split(data) or 'DATA'}' -o {output / 'audit'}"
        + (f" --posterior {posterior}" if posterior else "")
    )


def _audited(
    network: "nn.Module",
    training: "Source",
    judged: "tuple[Source, dict[str, Source]]",
    folder: Path,
    model: str,
    seed: int,
) -> None:
    from caveat.audits.audit import audit
    from caveat.cli.audit import show, write
    from caveat.cli.progress import steps

    known, others = judged
    with steps() as say:
        record = audit(network, known, train=training, ood=others, folder=folder, made_by=model, seed=seed, say=say)
        write(record, folder)
    show(record, folder)


def _ensemble(
    network: "nn.Module", train: "Callable[[int, Path], nn.Module]", seed: int, members: int, output: Path
) -> Any:
    """Train the other members, and put them together with the first."""
    from caveat import posteriors
    from caveat.training import members as several

    others = several(train, seeds=range(seed + 1, seed + members), folder=output / "members")
    first = posteriors.ensemble.state(network)
    found = posteriors.ensemble.stack([first, *(others.member(k) for k in range(len(others)))])
    posteriors.save(found, output / "ensemble.safetensors")
    return found


def _judged(test: str | None, ood: list[str], seed: int) -> "tuple[Source, dict[str, Source]] | None":
    """The sets of the audit at the end, opened before the training begins; None if there is no test set."""
    from caveat import data as sources
    from caveat.cli.audit import named

    if test is None:
        return None
    known = sources.load(test, seed=seed)
    return known, {name: sources.load(spec, like=known, seed=seed) for name, spec in map(named, ood)}


def _file_hash(path: Path | None) -> str | None:
    import hashlib

    if path is None:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"--weights: cannot read {path} ({error.strerror})") from None


def _show(history: "History") -> None:
    for epoch, (loss, accuracy, seconds) in enumerate(
        zip(history.loss, history.accuracy, history.seconds, strict=True), start=1
    ):
        shown = "" if accuracy is None else f", accuracy while training {accuracy:.2%}"
        typer.echo(f"epoch {epoch}: loss {loss:.4f}{shown}, {seconds:.0f} s")


def _test_split(spec: str) -> str | None:
    """The test split of a named set whose training split this is; None for other data."""
    from caveat import data

    head, *changes = spec.split("+")
    name, _, split = head.partition(":")
    kept = [change for change in changes if not change.startswith(("first=", "sample="))]
    named = data.NAMES.get(name)
    if named is None or "test" not in named.splits or (split or named.splits[0]) == "test":
        return None
    return "+".join([f"{name}:test", *kept])
