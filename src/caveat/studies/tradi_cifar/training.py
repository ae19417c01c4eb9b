"""Data and networks of TRADI on CIFAR-10: sizes, sets, and the training that TRADI and SWAG track."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import data, models
from caveat.data import Source
from caveat.objectives import cross_entropy
from caveat.posteriors import swag, tradi
from caveat.records.findings import Scale
from caveat.studies.kit import common
from caveat.training import fit

__all__ = ["SIZES", "Sets", "Size", "sets_of", "trained"]


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    seeds: int
    train: int | None
    test: int
    epochs: int
    members: int
    draws: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(seeds=1, train=256, test=60, epochs=2, members=2, draws=2),
    "small": Size(seeds=1, train=10_000, test=2000, epochs=6, members=3, draws=10),
    "full": Size(seeds=3, train=None, test=10_000, epochs=100, members=15, draws=20),
}


@dataclass(frozen=True)
class Sets:
    """Training and validation pictures, and what the networks are judged on."""

    train: Source
    held: Source
    """For validation."""
    test: tuple[Tensor, Tensor]
    ood: Tensor


def sets_of(scale: Scale, size: Size) -> Sets:
    """CIFAR-10 and CIFAR-100; smaller sets for a smoke run."""
    if scale == "smoke":
        whole, test = data.load("digits:train+rgb"), data.load("digits:test+rgb")
        ood = data.load("blobs", like=test)
    else:
        whole, test = data.load("cifar10:train"), data.load("cifar10_jpeg:test")
        ood = data.load(f"cifar100:train+sample={size.test}")
    held = min(2000 if scale != "full" else 5000, len(whole) // 5)
    count = len(whole) - held if size.train is None else min(size.train, len(whole) - held)
    return Sets(
        data.in_memory(data.subset(whole, torch.arange(count))),
        data.in_memory(data.subset(whole, torch.arange(len(whole) - held, len(whole)))),
        common.pictures(data.subset(test, torch.arange(min(size.test, len(test))))),
        common.pictures(ood)[0],
    )


def trained(
    train: Source, size: Size, seed: int, checkpoint: Path, *, track: bool
) -> tuple[nn.Module, tradi.Tracker, swag.Tracker]:
    """A network and its trackers, which watch the training if `track`: they change no weight."""
    model = models.resnet20(size=train.shape[1], generator=torch.Generator().manual_seed(seed))
    augment = data.augment.crop_and_flip if train.shape[1] == 32 else None
    batches = data.shuffled(
        train, batch=128, generator=torch.Generator().manual_seed(seed + 1), augment=augment, drop_last=True
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    total = size.epochs * len(batches)
    turn = 3 * total // 4
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, turn), eta_min=0.01)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 0.1, total_iters=total)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [falling, constant], [turn])
    tracked = tradi.start(model, optimizer, burn_in=min(turn, total - 1))
    averaged = swag.start(model, burn_in=min(turn, total - 2), every=max(1, (total - turn) // 20))
    fit(
        model, batches, cross_entropy, optimizer=optimizer, schedule=schedule, epochs=size.epochs,
        generator=torch.Generator().manual_seed(seed + 2), checkpoint=checkpoint, checkpoint_every=100,
        trackers=[tracked, averaged] if track else [],
    )  # fmt: skip
    return model.eval(), tracked, averaged
