"""Data and networks of the study of certified OOD detection: sizes, sets, outliers, and how each network is trained."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import data
from caveat.data import Source
from caveat.data.outliers import Outliers, taken_from, uniform_like
from caveat.errors import DataError
from caveat.objectives import Acet, Good, Objective, OutlierExposure, cross_entropy
from caveat.records.findings import Scale
from caveat.studies.kit import common
from caveat.studies.kit.networks import strided
from caveat.training import recipe

__all__ = ["ACET", "ALL", "EXPOSED", "GOOD", "PLAIN", "SIZES", "Set", "Size", "objectives", "set_of", "slug", "trained"]

PLAIN, EXPOSED, ACET, GOOD = ALL = ("plain", "outlier exposure", "ACET", "GOOD")


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    set: str
    radius: float
    """Of norm inf, in training, attack and guarantee."""
    train: int | None
    epochs: int
    """Of GOOD."""
    others: int
    """Epochs of the other trainings."""
    batch: int
    inner: int
    """Steps of ACET's attack in training."""
    outliers: int | None
    """Pictures to train on as outliers."""
    shown: int
    """Of them in a batch."""
    weight: float
    """Of GOOD's second term."""
    width: int
    hidden: int
    augment: tuple[str, ...]
    """Of the digits."""
    tested: int
    """In-distribution pictures: for the accuracy, and as the known side of each AUROC."""
    judged: int
    """Pictures of every OOD set."""
    steps: int
    restarts: int
    lines: tuple[str, ...]
    """Networks that are bounded by CROWN too: seconds a picture where most ReLUs are open."""
    radii: tuple[float, ...]
    """Of the curve of guarantees."""


SIZES: dict[Scale, Size] = {
    "smoke": Size(set="digits", radius=0.1, train=400, epochs=4, others=2, batch=64, inner=2, outliers=200, shown=32,
                  weight=0.3, width=4, hidden=16, augment=(), tested=60, judged=10, steps=4, restarts=2, lines=ALL,
                  radii=(0.0, 0.1)),
    "small": Size(set="mnist", radius=0.3, train=None, epochs=28, others=4, batch=128, inner=5, outliers=None,
                  shown=128, weight=0.5, width=32, hidden=256, augment=("crop",), tested=10_000, judged=100,
                  steps=10, restarts=20, lines=(GOOD,), radii=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
    "full": Size(set="mnist", radius=0.3, train=None, epochs=200, others=50, batch=128, inner=40, outliers=None,
                 shown=128, weight=0.3, width=64, hidden=512, augment=("crop",), tested=10_000, judged=2000,
                 steps=100, restarts=20, lines=ALL, radii=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
}  # fmt: skip
OUTLIERS = {"digits": "blobs", "mnist": "cifar100:train+grey+28x28"}
"""What is shown as outliers in training: none of the sets that are judged."""
OOD = {
    "digits": {"letters": "letters", "noise": "noise:uniform"},
    "mnist": {
        "Fashion-MNIST": "fashion-mnist:test", "letters": "notmnist_small", "Omniglot": "omniglot+invert+28x28",
        "KMNIST": "kmnist:test",
        "grey CIFAR-10": "cifar10:test+grey+28x28", "noise": "noise:uniform",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Set:
    """In-distribution pictures for training and test, outliers to train on, and OOD pictures by name."""

    train: Source
    test: tuple[Tensor, Tensor]
    outliers: Tensor
    ood: dict[str, Tensor]


def set_of(size: Size, seed: int) -> Set:
    """The pictures, of the OOD sets those that are there."""
    few = "" if size.train is None else f"+first={size.train}"
    train = data.in_memory(data.load(f"{size.set}:train{few}"))
    test = data.load(f"{size.set}:test+first={size.tested}")
    shown = data.load(OUTLIERS[size.set], like=train, seed=seed)
    shown = data.subset(shown, torch.arange(min(size.outliers or len(shown), len(shown))))
    ood: dict[str, Tensor] = {}
    for title, spec in OOD[size.set].items():
        try:
            found = data.load(spec, like=test, seed=seed)
        except DataError:  # not every set is everywhere
            continue
        rows = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))  # some are sorted by class
        ood[title] = common.pictures(data.subset(found, rows[: size.judged]))[0]
    return Set(train, common.pictures(test), common.pictures(shown)[0], ood)


def objectives(size: Size, outliers: Outliers = uniform_like) -> dict[str, Objective]:
    """What each network is trained with: all but the first on the same outliers."""
    return {
        PLAIN: cross_entropy,
        EXPOSED: OutlierExposure(weight=1.0, outliers=outliers),
        ACET: Acet(radius=size.radius, steps=size.inner, outliers=outliers),
        GOOD: Good(radius=size.radius, weight=size.weight, outliers=outliers),
    }


def trained(name: str, inside: Set, size: Size, seed: int, folder: Path) -> tuple[nn.Module, float]:
    """As `caveat train` does it, stored in the folder; the network and the seconds it took."""
    model = strided(inside.train.shape, size.width, size.hidden, torch.Generator().manual_seed(seed))
    draw = taken_from(inside.outliers)

    def outliers(images: Tensor, generator: torch.Generator) -> Tensor:
        return draw(images[: size.shown], generator)

    history, _ = recipe.train(
        model, inside.train, epochs=size.epochs if name == GOOD else size.others, rate=2e-3, batch=size.batch,
        generator=torch.Generator().manual_seed(seed + 1), goal=objectives(size, outliers)[name],
        augment=size.augment,
        checkpoint=folder / slug(name) / "checkpoint.safetensors",
    )  # fmt: skip
    return model.eval(), sum(history.seconds)


def slug(name: str) -> str:
    """A network's name as that of its folder."""
    return name.lower().replace(" ", "-")
