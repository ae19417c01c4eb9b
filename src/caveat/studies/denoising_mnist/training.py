"""Data and networks of the study on OOD zeros: sizes, sets, and training that can be resumed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caveat import data
from caveat.data import Source
from caveat.models.denoising_classifier import DenoisingClassifier, denoising_classifier
from caveat.objectives.denoising import Denoising
from caveat.records.findings import Scale
from caveat.studies.kit import common
from caveat.training import fit

__all__ = [
    "ABLATIONS", "COEFFICIENTS", "CROSS_ENTROPY", "FRESH", "KEPT", "SIZES", "Sets", "Size", "ablated", "improved",
    "sets", "trained", "whole",
]  # fmt: skip

RATE = 4e-3


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    seeds: int
    width: int
    epochs: int
    train: int | None
    """Training pictures; None for all but the validation part."""
    held: int
    """Validation pictures."""
    short: int
    """Training pictures of the ablations."""
    short_epochs: int
    fresh: int
    """Seeds of the improved pipeline, none of which anything was chosen on."""


SIZES: dict[Scale, Size] = {
    "smoke": Size(seeds=1, width=4, epochs=2, train=800, held=300, short=300, short_epochs=1, fresh=1),
    "small": Size(seeds=1, width=8, epochs=3, train=15_000, held=5000, short=5000, short_epochs=2, fresh=2),
    "full": Size(seeds=3, width=16, epochs=4, train=None, held=5000, short=12_000, short_epochs=3, fresh=5),
}

CROSS_ENTROPY = "cross-entropy alone, no autoencoder"
COEFFICIENTS = {"coefficient 0": 0, "coefficient 1": 1, "coefficient 5": 5}
ABLATIONS: dict[str, Denoising] = {
    **{name: Denoising(k=weight, spread=weight) for name, weight in COEFFICIENTS.items()},
    "coefficient 1, clean digits classified": Denoising(clean=True),
    CROSS_ENTROPY: Denoising(reconstruction=0, k=0, spread=0),
}
"""Of one seed, on fewer pictures. The last one sees no noise at all."""
IMPROVED = ABLATIONS[CROSS_ENTROPY]
KEPT = 0.92
"""Share of the validation digits that the improved rule accepts: the 90 % that are to be right, and some for errors."""
FRESH = 100
"""The first seed of the improved pipeline, from that of the study on."""


@dataclass(frozen=True)
class Sets:
    """In-distribution digits 1 to 9; zeros only in `zeros`, by which nothing is chosen."""

    train: Source
    held: Tensor
    """Validation pictures, in the set's order, which is none."""
    test: tuple[Tensor, Tensor]
    zeros: Tensor


def sets(scale: Scale, size: Size) -> Sets:
    """The last pictures of the training set are for validation, as many as in the report."""
    name = "mnist5k" if scale == "smoke" else "mnist"
    whole = data.in_memory(data.load(f"{name}:train+without=0"))
    if scale == "smoke":  # its digits stand in order
        whole = data.subset(whole, torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)))
    held = min(size.held, len(whole) // 5)
    count = len(whole) - held if size.train is None else min(size.train, len(whole) - held)
    return Sets(
        train=data.subset(whole, torch.arange(count)),
        held=common.pictures(data.subset(whole, torch.arange(len(whole) - held, len(whole))))[0],
        test=common.pictures(data.load(f"{name}:test+without=0")),
        zeros=common.pictures(data.load(f"{name}:test+only=0"))[0],
    )


def whole(given: Sets, size: Size, folder: Path, *, seed: int) -> DenoisingClassifier:
    """The network of one seed."""
    return trained(
        given, Denoising(), folder / f"seed-{seed}.safetensors", width=size.width, epochs=size.epochs, seed=seed
    )


def ablated(given: Sets, size: Size, folder: Path, *, name: str, seed: int) -> DenoisingClassifier:
    """The network of one of `ABLATIONS`."""
    file = folder / f"{name.replace(' ', '-').replace(',', '')}-seed-{seed}.safetensors"
    return trained(
        given, ABLATIONS[name], file, width=size.width, epochs=size.short_epochs, seed=seed, count=size.short
    )


def improved(given: Sets, size: Size, folder: Path, *, seed: int) -> DenoisingClassifier:
    """The network of the improved pipeline: it sees clean digits, and no other loss than cross-entropy."""
    file = folder / f"improved-seed-{seed}.safetensors"
    return trained(given, IMPROVED, file, width=size.width, epochs=size.epochs, seed=seed)


def trained(
    given: Sets, objective: Denoising, checkpoint: Path, *, width: int, epochs: int, seed: int, count: int | None = None
) -> DenoisingClassifier:
    """Adam, the rate up to 0.004 and down again once (one cycle), batches of 128; a finished run is only read back."""
    train = given.train if count is None else data.subset(given.train, torch.arange(min(count, len(given.train))))
    model = denoising_classifier(width=width, generator=torch.Generator().manual_seed(seed))
    if width % 8 == 0:  # with 4 channels torch 2.13 corrupts memory in its backward pass on processors without AVX-512
        # a third faster on a CPU; torch's types lack this overload
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    batches = data.shuffled(train, batch=128, generator=torch.Generator().manual_seed(seed + 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * len(batches))
    fit(
        model, batches, objective, optimizer=optimizer, schedule=schedule, epochs=epochs,
        generator=torch.Generator().manual_seed(seed + 2), checkpoint=checkpoint,
    )  # fmt: skip
    return model.eval()
