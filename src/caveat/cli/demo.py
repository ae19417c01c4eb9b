"""`caveat demo`: a network and its audit from nothing."""

from pathlib import Path

import typer

from caveat.cli.checks import output_folder
from caveat.cli.options import DEVICE
from caveat.cli.terminal import echo

NAME = "demo"


def run(
    output: Path = typer.Option(
        Path("runs/demo"), "-o", "--output", help="Folder for model.safetensors, record.json and report.html."
    ),
    epochs: int = typer.Option(8, min=1, help="Passes over the training set."),
    replicas: int = typer.Option(200, min=1, help="Simulated data sets behind the confidence interval of the ECE."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of every random choice."),
    device: str = DEVICE,
) -> None:
    """Train a small network on 4,000 real digits without the nine, then audit it: what does it predict for a nine?"""
    output_folder(output, ("report.html", "record.json"))
    import torch

    from caveat import data, devices, models
    from caveat.audits.audit import audit
    from caveat.cli.audit import show, write
    from caveat.cli.progress import steps
    from caveat.files import alone
    from caveat.training.recipe import save_weights, train

    place = devices.choose(device)
    known = data.load("mnist5k:test+without=9")
    training = data.load("mnist5k:train+without=9")
    with alone(output), steps() as say:
        say(f"training a small CNN on {len(training)} digits, {epochs} epochs")
        generator = torch.Generator().manual_seed(seed)
        network = models.named(models.small_cnn(classes=9, generator=generator), "small_cnn").to(place)
        train(network, training, epochs=epochs, rate=2e-3, batch=128, generator=generator)
        ood = {"nines": "mnist5k:test+only=9", "permuted": "permuted", "blobs": "blobs", "noise": "noise:uniform"}
        record = audit(
            network.eval(),
            known,
            train=training,
            ood={name: data.load(spec, like=known, seed=seed) for name, spec in ood.items()},
            replicas=replicas,
            seed=seed,
            folder=output,
            made_by="caveat.models:small_cnn(classes=9)",
            say=say,
        )
        say("writing the report")
        save_weights(network, output / "model.safetensors")
        write(record, output)
    show(record, output)
    echo("Next: your own network, with  caveat audit --model package.module:callable --test DATA -o runs/mine")
