"""Data and networks of the study of confidence far away: sizes, sets, and the published recipe, shortened."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import data, models
from caveat.data import Source
from caveat.errors import DataError
from caveat.objectives import Acet, Ceda, Objective, cross_entropy
from caveat.records.findings import Scale
from caveat.studies.kit import common
from caveat.training import fit

__all__ = ["SIZES", "Set", "Size", "objectives", "set_of", "trained"]


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    sets: tuple[str, ...]
    train: int | None
    epochs: int
    warm: int
    """Epochs with a small weight first, for ACET."""
    steps: int
    width: int
    hidden: int
    rays: int
    judged: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(sets=("digits",), train=400, epochs=2, warm=1, steps=2, width=4, hidden=16, rays=20, judged=60),
    "small": Size(sets=("mnist",), train=20_000, epochs=14, warm=0, steps=10, width=16, hidden=128, rays=1000,
                  judged=2000),
    "full": Size(sets=("mnist", "fashion-mnist", "cifar10"), train=None, epochs=100, warm=0, steps=40, width=32,
                 hidden=1024, rays=10_000, judged=10_000),
}  # fmt: skip
OOD = {
    "digits": {"blobs": "blobs", "noise": "noise:acet"},
    "mnist": {
        "Fashion-MNIST": "fashion-mnist:test", "notMNIST letters": "notmnist_small", "KMNIST": "kmnist:test",
        "grey CIFAR-10": "cifar10:test+grey+28x28", "noise": "noise:acet",
    },
    "fashion-mnist": {
        "MNIST": "mnist:test", "notMNIST letters": "notmnist_small", "grey CIFAR-10": "cifar10:test+grey+28x28",
        "noise": "noise:acet",
    },
    "cifar10": {"CIFAR-100": "cifar100:test", "GTSRB": "gtsrb:test", "textures": "dtd10:test+32x32",
                "noise": "noise:acet"},
}  # fmt: skip


@dataclass(frozen=True)
class Set:
    """In-distribution pictures for training and test, and OOD ones by name."""

    name: str
    train: Source
    test: tuple[Tensor, Tensor]
    ood: dict[str, Tensor]


def set_of(name: str, size: Size, seed: int) -> Set:
    """The set of that name and the OOD sets that are there."""
    whole = data.in_memory(data.load(f"{name}:train"))
    test = data.load(f"{name}:test")
    test = data.subset(test, torch.arange(min(size.judged, len(test))))
    count = len(whole) if size.train is None else min(size.train, len(whole))
    ood: dict[str, Tensor] = {}
    for title, spec in OOD[name].items():
        try:
            found = data.load(spec, like=test, seed=seed)
        except DataError:  # not every set is everywhere
            continue
        ood[title] = common.pictures(data.subset(found, torch.arange(min(size.judged, len(found)))))[0]
    return Set(name, data.subset(whole, torch.arange(count)), common.pictures(test), ood)


def objectives(size: Size) -> dict[str, Objective]:
    """By name of the training."""
    return {"plain": cross_entropy, "CEDA": Ceda(), "ACET": Acet(steps=size.steps)}


def _network(inside: Set, size: Size, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    channels, side = inside.train.shape[:2]
    if inside.name == "cifar10":
        return models.resnet20(generator=generator)
    return models.lenet(channels=channels, size=side, width=size.width, hidden=size.hidden, generator=generator)


def trained(inside: Set, size: Size, objective: Objective, seed: int, place: Path) -> tuple[nn.Module, float]:
    """The published recipe, shortened. With `warm`, ACET's weight is small at first; but a network that is confident on
    all noise by then stays so, since its confidence has no slope left."""
    model = _network(inside, size, seed)
    coloured = inside.name == "cifar10"
    augment = data.augment.crop_and_flip if coloured else data.augment.crop
    batches = data.shuffled(
        inside.train, batch=128, generator=torch.Generator().manual_seed(seed + 1), augment=augment, drop_last=True
    )
    if coloured:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    total = size.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(total * part) for part in (0.5, 0.75, 0.9)], 0.1)
    generator = torch.Generator().manual_seed(seed + 2)
    phases: list[tuple[str, Objective, int]] = [("main", objective, size.epochs)]
    if isinstance(objective, Acet) and size.warm:
        phases = [
            ("warm", Acet(weight=0.001, steps=size.steps), size.warm), ("main", objective, size.epochs - size.warm),
        ]  # fmt: skip
    seconds = 0.0
    for name, goal, epochs in phases:
        history = fit(
            model, batches, goal, optimizer=optimizer, schedule=schedule, epochs=epochs, generator=generator,
            checkpoint=place / f"{name}.safetensors", checkpoint_every=100,
        )  # fmt: skip
        seconds += sum(history.seconds)
    return model.eval(), seconds
