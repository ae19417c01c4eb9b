"""Data and sizes of the study of two uncertainties: a noisy sine, and two sparse classes that overlap."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caveat.objectives import cross_entropy
from caveat.records.findings import Scale
from caveat.scores.regression import Split, split
from caveat.studies.kit.regression import Answer, Recipe

__all__ = ["CLASS_SAMPLES", "PI", "SIZES", "SLOPE", "Size", "noisy_sine", "scaled", "split_at", "two_classes"]

PI = math.pi
SLOPE = math.sqrt(0.005)
"""The noise's standard deviation is this times x."""
CLASS_SAMPLES = 40


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    seeds: int
    samples: int
    recipe: Recipe

    def for_classes(self) -> Recipe:
        """Few samples: without a strong weight decay all networks are confident in the noise."""
        epochs = max(4, self.recipe.epochs // 3)
        return replace(self.recipe, objective=cross_entropy, batch=20, decay=0.03, epochs=epochs)


REAL = Recipe(hidden=(64, 64), epochs=300, rate=0.01, batch=50, members=10, draws=20, dropout=0.05, decay=1e-4)
SIZES: dict[Scale, Size] = {
    "smoke": Size(1, 60, replace(REAL, epochs=4, members=2, draws=3)),
    "small": Size(1, 400, replace(REAL, epochs=150, members=5)),
    "full": Size(3, 400, REAL),
}


def noisy_sine(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples (n, 1) of x, uniform in (0, 2π), and y = sin x + N(0, 0.005 x²)."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * PI * torch.rand(count, 1, generator=generator)
    return x, x[:, 0].sin() + SLOPE * x[:, 0] * torch.randn(count, generator=generator)


def scaled(inputs: Tensor) -> Tensor:
    """Standardised x, as the networks take it."""
    return (inputs - PI) / (PI / math.sqrt(3))


def split_at(answer: Answer, inputs: Tensor) -> Split:
    """Aleatoric and epistemic variance at those x."""
    draws = answer(scaled(inputs))
    return split(draws.mean.double(), draws.variance.double())


def two_classes(seed: int) -> tuple[Tensor, Tensor]:
    """Two classes of 20 points each that overlap: N((∓0.8, 0), 0.8² I)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASS_SAMPLES) % 2
    centres = torch.tensor([[-0.8, 0.0], [0.8, 0.0]])
    return centres[labels] + 0.8 * torch.randn(CLASS_SAMPLES, 2, generator=generator), labels
