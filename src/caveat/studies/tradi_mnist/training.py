"""Data and networks of TRADI on MNIST: sizes, sets, and the recipe of the authors' code."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from caveat import data
from caveat.data import Source
from caveat.models.tradi_mlp import tradi_mlp
from caveat.objectives import cross_entropy
from caveat.posteriors import swag, tradi
from caveat.records.findings import Scale
from caveat.studies.kit import common
from caveat.training import fit

__all__ = ["DECAYS", "SCALES", "SIZES", "Sets", "Size", "sets_of", "trained"]

DECAYS = (1e-2, 1e-4)
"""Weight decay: that of the public code, and less."""
SCALES = (1.0, 0.5, 0.25)
"""How far from the mean TRADI's samples are taken, in its own standard deviations."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    seeds: int
    epochs: int
    step: int
    """Epochs until the rate is divided by 10."""
    members: int
    draws: int
    train: int | None
    """Training pictures; None for all but the validation part."""
    longer: int
    """Epochs of the authors' code, for the last table."""


SIZES: dict[Scale, Size] = {
    "smoke": Size(seeds=1, epochs=4, step=2, members=2, draws=3, train=600, longer=5),
    "small": Size(seeds=1, epochs=10, step=5, members=5, draws=20, train=20_000, longer=15),
    "full": Size(seeds=3, epochs=20, step=10, members=15, draws=20, train=None, longer=30),
}


@dataclass(frozen=True)
class Sets:
    """Training and validation pictures, and what the networks are judged on."""

    train: Source
    held: Source
    """For validation."""
    test: tuple[torch.Tensor, torch.Tensor]
    ood: torch.Tensor

    def renewing(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Training batches by which batch-norm statistics are renewed for sampled weights."""
        return list(data.subset(self.train, torch.arange(min(20_000, len(self.train)))))


def sets_of(scale: Scale, size: Size) -> Sets:
    """MNIST and notMNIST; smaller ones for a smoke run."""
    if scale == "smoke":
        whole, test = data.load("digits:train"), data.load("digits:test")
        ood = data.load("blobs", like=test)
    else:
        whole, test, ood = data.load("mnist:train"), data.load("mnist:test"), data.load("notmnist_small")
    whole = data.in_memory(whole)
    held = min(5000, len(whole) // 5)
    count = len(whole) - held if size.train is None else min(size.train, len(whole) - held)
    return Sets(
        train=data.subset(whole, torch.arange(count)),
        held=data.subset(whole, torch.arange(len(whole) - held, len(whole))),
        test=common.pictures(test),
        ood=common.pictures(ood)[0],
    )


def trained(
    sets: Sets, size: Size, seed: int, checkpoint: Path, *, epochs: int, track: bool, decay: float = DECAYS[0]
) -> tuple[nn.Module, tradi.Tracker, swag.Tracker]:
    """A network and its trackers, which watch the training if `track`: they change no weight."""
    model = tradi_mlp(size=sets.train.shape[1], generator=torch.Generator().manual_seed(seed))
    batches = data.shuffled(sets.train, batch=128, generator=torch.Generator().manual_seed(seed + 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=decay)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, size.step * steps, 0.1)
    tracked = tradi.start(model, optimizer, burn_in=steps)
    averaged = swag.start(model, burn_in=(3 * size.step // 2) * steps, every=max(1, steps // 4))
    fit(
        model, batches, cross_entropy, optimizer=optimizer, schedule=schedule, epochs=epochs,
        trackers=[tracked, averaged] if track else [],
        generator=torch.Generator().manual_seed(seed + 2), checkpoint=checkpoint,
    )  # fmt: skip
    return model.eval(), tracked, averaged
