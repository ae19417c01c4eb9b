"""Relative noise: every weight times a random factor around 1. A posterior to copy and change."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.posteriors.layers import normal, parameters

__all__ = ["RelativeNoise", "fit"]


@dataclass(frozen=True)
class RelativeNoise:
    """Weights times Gaussian factors."""

    mean: dict[str, Tensor]
    scale: float

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights of one network."""
        return {
            name: mean * (1 + self.scale * normal(mean, generator))
            for name, mean in sorted(self.mean.items())  # a file keeps no order
        }


def fit(model: nn.Module, *, scale: float = 0.1) -> RelativeNoise:
    """Take a trained network as the mean; the noise of each weight is `scale` times the weight.

    For a first look at what noise does; it knows nothing of the training. Formula: w = w* (1 + scale z), z ~ N(0, 1)
    for each weight.

    Raises
    ------
    OptionError
        If `scale` is negative.

    Source: author, title, venue (arXiv number), equation.

    >>> layer = nn.Linear(2, 2)
    >>> torch.equal(fit(layer, scale=0.0).draw(torch.Generator())["weight"], layer.weight)
    True
    """
    if scale < 0:
        raise OptionError(f"scale: expected a number of at least 0, got {scale}")
    return RelativeNoise({name: weight.clone() for name, weight in parameters(model).items()}, scale)
