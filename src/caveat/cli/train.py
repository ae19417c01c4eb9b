"""`caveat train`: a network from data, with a loop that can be interrupted."""

from pathlib import Path
from typing import TYPE_CHECKING

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
) -> None:
    """Train a classifier with cross-entropy. Run it again after an interruption and it goes on where it was."""
    import torch

    from caveat import data as sources
    from caveat.cli import model as models

    training = sources.load(data, seed=seed)
    network = models.load(model, weights, seed=seed)
    history = train(
        network,
        training,
        epochs=epochs,
        optimizer=optimizer,
        rate=rate,
        decay=decay,
        batch=batch,
        augment=augment,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=output / "checkpoint.safetensors",
    )
    save_weights(network, output / "model.safetensors")
    for epoch, (loss, accuracy, seconds) in enumerate(
        zip(history.loss, history.accuracy, history.seconds, strict=True), start=1
    ):
        shown = "" if accuracy is None else f", accuracy while training {accuracy:.2%}"
        typer.echo(f"epoch {epoch}: loss {loss:.4f}{shown}, {seconds:.0f} s")
    typer.echo(
        f"Next: caveat audit --model '{model}' --weights {output / 'model.safetensors'} --fit '{data}' --test DATA "
        f"-o {output / 'audit'}"
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
) -> "History":
    """Cross-entropy with one cycle of the learning rate; the progress bar is on standard error."""
    import torch

    from caveat import data
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
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        steps, max_lr=rate, total_steps=max(1, epochs * len(batches)), cycle_momentum=False
    )
    return fit(
        network, batches, cross_entropy, optimizer=steps, schedule=schedule, epochs=epochs, generator=generator,
        checkpoint=checkpoint,
    )  # fmt: skip


def save_weights(network: "nn.Module", path: Path) -> None:
    """Write all parameters and buffers as safetensors, under a temporary name first."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(save({k: v.contiguous() for k, v in network.state_dict().items()}))
    temporary.replace(path)
