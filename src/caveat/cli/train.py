"""`caveat train`: a network from data, with a loop that can be interrupted."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch
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
    track: list[str] = typer.Option(
        [],
        help="Track the weights' distribution: tradi, swag or snapshots; any number of times. Writes NAME.safetensors.",
    ),
    members: int = typer.Option(1, help="Train so many networks of different seeds: writes ensemble.safetensors too."),
) -> None:
    """Train a classifier with cross-entropy. Run it again after an interruption and it goes on where it was."""
    import torch

    from caveat import data as sources
    from caveat import posteriors
    from caveat.audits.catalog import known_name
    from caveat.cli import model as models
    from caveat.training import members as several

    for name in track:
        known_name("--track", name, posteriors.FROM_TRAINING)
    training = sources.load(data, seed=seed)

    def one(number: int, checkpoint: Path, watch: Sequence[str] = ()) -> "tuple[nn.Module, History, dict[str, Any]]":
        network = models.load(model, weights, seed=number)
        return network, *train(
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
        )

    network, history, tracked = one(seed, output / "checkpoint.safetensors", track)
    save_weights(network, output / "model.safetensors")
    for name, posterior in tracked.items():
        posteriors.save(posterior, output / f"{name}.safetensors")
    if members > 1:
        others = several(
            lambda number, checkpoint: one(number, checkpoint)[0],
            seeds=range(seed + 1, seed + members),
            folder=output / "members",
        )
        first = posteriors.ensemble.state(network)
        found = posteriors.ensemble.stack([first, *(others.member(k) for k in range(len(others)))])
        posteriors.save(found, output / "ensemble.safetensors")
        tracked = {"ensemble": found, **tracked}
    for epoch, (loss, accuracy, seconds) in enumerate(
        zip(history.loss, history.accuracy, history.seconds, strict=True), start=1
    ):
        shown = "" if accuracy is None else f", accuracy while training {accuracy:.2%}"
        typer.echo(f"epoch {epoch}: loss {loss:.4f}{shown}, {seconds:.0f} s")
    typer.echo(
        f"Next: caveat audit --model '{model}' --weights {output / 'model.safetensors'} --fit '{data}' --test DATA "
        f"-o {output / 'audit'}" + "".join(f" --posterior {output / name}.safetensors" for name in list(tracked)[:1])
    )


def train(  # what varies independently is a separate argument
    network: "nn.Module",
    training: "Source",
    *,
    epochs: int,
    rate: float,
    batch: int,
    generator: "torch.Generator",
    optimizer: str = "adam",
    decay: float = 0.0,
    augment: bool = False,
    checkpoint: Path | None = None,
    track: "Sequence[str]" = (),
) -> "tuple[History, dict[str, Any]]":
    """Cross-entropy with one cycle of the learning rate; the progress bar is on standard error.

    Gives the history, and per name of `track` the posterior that was tracked: SWAG and snapshots with 20 copies over
    the last quarter of the run, TRADI from the second epoch on.
    """
    import torch

    from caveat import data, posteriors
    from caveat.errors import OptionError
    from caveat.objectives import cross_entropy
    from caveat.training import fit

    batches = data.shuffled(
        training, batch=batch, generator=generator, augment=data.augment.crop_and_flip if augment else None
    )
    if optimizer == "adam":
        steps = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    elif optimizer == "sgd":
        steps = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=decay)
    else:
        raise OptionError(f"--optimizer: expected adam or sgd, got {optimizer!r}")
    total = max(1, epochs * len(batches))
    schedule: torch.optim.lr_scheduler.LRScheduler
    if track:  # weights that no longer move have no spread to track: the last quarter goes on at a tenth of the rate
        schedule = torch.optim.lr_scheduler.LambdaLR(steps, partial(_falling, total=total))
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(steps, max_lr=rate, total_steps=total, cycle_momentum=False)
    last, every = 3 * total // 4, max(1, total // 80)
    makers = {
        "tradi": lambda: posteriors.tradi.start(network, steps, burn_in=min(len(batches), total - 1)),
        "swag": lambda: posteriors.swag.start(network, burn_in=last, every=every),
        "snapshots": lambda: posteriors.snapshots.start(network, burn_in=last, every=every),
    }
    trackers = {name: makers[name]() for name in track}
    history = fit(
        network, batches, cross_entropy, optimizer=steps, schedule=schedule, epochs=epochs, generator=generator,
        checkpoint=checkpoint, trackers=list(trackers.values()),
    )  # fmt: skip
    return history, {name: tracker.posterior() for name, tracker in trackers.items()}


def _falling(step: int, *, total: int) -> float:
    """Part of the rate: rises over a tenth of the run, falls to a tenth by three quarters of it, and stays there."""
    done = step / total
    if done < 0.1:
        return max(0.04, done / 0.1)
    fallen = min(1.0, (done - 0.1) / 0.65)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * fallen)) / 2


def save_weights(network: "nn.Module", path: Path) -> None:
    """Write all parameters and buffers as safetensors, under a temporary name first."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(save({k: v.contiguous() for k, v in network.state_dict().items()}))
    temporary.replace(path)
