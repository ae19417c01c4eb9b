"""A small world in which every score has something to find: pictures of four classes, and others far from them.

A network with batch normalisation and dropout, trained for a second; an ensemble of such; a part that reconstructs.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from caveat.models import WithAutoencoder
from caveat.observations import Observations, observe
from caveat.posteriors import Predictive, ensemble
from caveat.scoring import catalog
from caveat.scoring.kinds import Material, kind_of
from caveat.scoring.plan import Plan, plan

__all__ = ["World", "pictures", "world"]

CLASSES, SIZE, STEPS = 4, 8, 80


def pictures(count: int, *, seed: int, far: bool = False, noise: float = 0.12) -> tuple[Tensor, Tensor]:
    """Float64 pictures in [0, 1] of one channel: a bright quarter, the class; `far`, faint diagonal stripes instead."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    half = SIZE // 2
    images = torch.full((count, 1, SIZE, SIZE), 0.15, dtype=torch.float64)
    if far:
        stripes = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)[None]) % 3 == 0
        strength = 0.3 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float64)
        images = images + strength * stripes
    else:
        for label in range(CLASSES):
            row, column = half * (label // 2), half * (label % 2)
            images[labels == label, :, row : row + half, column : column + half] = 0.8
    images = images + noise * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    return images.clamp(0, 1), labels


class Project(nn.Module):
    """Reconstructs the four patterns and nothing else: the mean of each quarter."""

    def forward(self, inputs: Tensor) -> Tensor:
        means = nn.functional.avg_pool2d(inputs, SIZE // 2)
        return nn.functional.interpolate(means, scale_factor=SIZE // 2, mode="nearest")


def _trained(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 4, stride=4), nn.ReLU(),
            nn.Conv2d(12, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1),
        ]  # fmt: skip
        model = nn.Sequential(*layers, nn.Linear(12, CLASSES)).double()
        images, labels = pictures(200, seed=100)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class World:
    """One network or ensemble in one precision, and what its scores are fitted on."""

    model: nn.Module
    plan: Plan
    material: Material

    def look(self, inputs: Tensor, *, batch: int = 256) -> Observations:
        """What scores see of these inputs, in batches of this size."""
        return _look(self.model, self.plan, (inputs, torch.zeros(len(inputs), dtype=torch.long)), batch)

    def fit(self, name: str, material: Material | None = None) -> catalog.FittedScore:
        """The score of that name."""
        return catalog.fit([name], material or self.material, self.plan.probes)[name]


def _look(model: nn.Module, planned: Plan, labelled: tuple[Tensor, Tensor], batch: int = 256) -> Observations:
    inputs, labels = labelled[0].to(next(model.buffers()).dtype), labelled[1]
    batches = list(zip(inputs.split(batch), labels.split(batch), strict=True))
    return observe(model, batches, features=planned.head is not None, head=planned.head, probes=planned.probes)


@cache
def _members() -> tuple[nn.Sequential, ...]:
    return tuple(_trained(seed) for seed in (1, 2, 3))


@cache
def world(*, many: bool = False, dtype: torch.dtype = torch.float64) -> World:
    """The world of one network, or of many of which scores see the draws."""
    first = deepcopy(_members()[0]).to(dtype)
    model = WithAutoencoder(first, Project())
    if many:
        model = Predictive(first, ensemble.of([deepcopy(member).to(dtype) for member in _members()]))
    names = [name for name in catalog.families() if kind_of(name).from_draws == many]
    images, labels = pictures(300, seed=10)
    images = images.to(dtype)
    planned = plan(names, model.eval(), images, options=lambda: (images[:64], labels[:64]), explicit=names)
    material = Material(
        train=_look(model, planned, (images, labels)),
        head=None if planned.head is None else planned.head.head,
        held_out=_look(model, planned, pictures(300, seed=11, noise=0.5)),  # noisy, so that some answers are wrong
        outliers=_look(model, planned, pictures(100, seed=12, far=True)),
    )
    return World(model, planned, material)
