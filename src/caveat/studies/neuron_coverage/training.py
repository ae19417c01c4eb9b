"""Data of the study of neuron coverage: many test sets whose error and OOD share differ."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from caveat import data
from caveat.studies.kit import common

__all__ = ["CHANGES", "Drawn", "Pool", "drawn", "pool_of"]

GREY = "cifar10:test+grey+28x28"


@dataclass(frozen=True)
class Pool:
    """What sets are drawn from."""

    inputs: Tensor
    labels: Tensor
    ood: dict[str, Tensor]


@dataclass(frozen=True)
class Drawn:
    """One test set: in-distribution pictures, changed, and OOD ones after them."""

    inputs: Tensor
    labels: Tensor
    """Of the in-distribution pictures, which come first."""
    ood_share: float
    change: str
    strength: float


def _noise(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return (pictures + strength * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)


def _contrast(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    del generator
    return pictures * (1 - strength)


def _blur(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    del generator
    smooth = pictures
    for _ in range(3):
        smooth = functional.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
    return (1 - strength) * pictures + strength * smooth


def _occluded(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    side = max(1, round(strength * pictures.shape[-1]))
    found = pictures.clone()
    corners = torch.randint(pictures.shape[-1] - side + 1, (len(pictures), 2), generator=generator)
    for row, (y, x) in enumerate(corners.tolist()):
        found[row, :, y : y + side, x : x + side] = 0
    return found


CHANGES: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise, "contrast": _contrast, "blur": _blur, "occlusion": _occluded,
}  # fmt: skip
"""What is done to in-distribution pictures, by a strength in [0, 0.8]."""


def pool_of(name: str, *, limit: int | None = None) -> Pool:
    """The test pictures of a set and OOD pictures of its shape."""
    few = "" if limit is None else f"+first={limit}"
    test = data.load(f"{name}:test{few}")
    outside = {"mnist": ("kmnist:test", "notmnist_small", GREY), "digits": ("letters", "blobs")}[name]
    ood = {spec: common.pictures(data.load(spec, like=test))[0] for spec in (*outside, "noise:uniform")}
    inputs, labels = common.pictures(test)
    return Pool(inputs, labels, ood)


def drawn(pool: Pool, sizes: tuple[int, ...], number: int, seed: int) -> Drawn:
    """Set `number`: its size, change, strength and OOD share are drawn one from another's independently."""
    generator = torch.Generator().manual_seed(100_003 * seed + number)

    def one_of(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    size = sizes[one_of(len(sizes))]
    change = list(CHANGES)[one_of(len(CHANGES))]
    strength = 0.8 * float(torch.rand(1, generator=generator))
    share = (0.0, 0.0, 0.1, 0.25, 0.5)[one_of(5)]
    outside = list(pool.ood.values())[one_of(len(pool.ood))]
    strange = min(round(share * size), len(outside))
    rows = torch.randint(len(pool.inputs), (size - strange,), generator=generator)
    changed = CHANGES[change](pool.inputs[rows], strength, generator)
    others = outside[torch.randint(len(outside), (strange,), generator=generator)]
    return Drawn(torch.cat([changed, others]), pool.labels[rows], strange / size, change, strength)
