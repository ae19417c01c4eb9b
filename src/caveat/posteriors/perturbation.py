"""Gaussian perturbation ensemble: the trained weights, each with noise of one relative size."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.posteriors.layers import normal, of_norms, parameters

__all__ = ["Perturbation", "fit"]


@dataclass(frozen=True)
class Perturbation:
    """A Gaussian around the trained weights."""

    mean: dict[str, Tensor]
    spread: dict[str, Tensor]
    """Standard deviation of each tensor's noise, `()`."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights of one network."""
        return {
            name: mean + self.spread[name] * normal(mean, generator) if name in self.spread else mean
            for name, mean in sorted(self.mean.items())  # a file keeps no order
        }


def fit(model: nn.Module, *, scale: float = 0.1) -> Perturbation:
    """Take a trained network as the mean; the noise is `scale` times the root mean square of each tensor.

    The control experiment for every posterior: what noise alone buys, without looking at the training. Weights of
    normalisation layers and frozen weights stay as they are. Formula: w = w* + scale rms(w*) z, z ~ N(0, I) for each
    tensor.

    Raises
    ------
    OptionError
        If `scale` is negative.

    Source: a baseline of Franchi et al., TRADI, ECCV 2020 (arXiv 1912.11316), which leaves the size open.

    Example
    -------
    >>> layer = nn.Linear(2, 2)
    >>> torch.equal(fit(layer, scale=0.0).draw(torch.Generator())["weight"], layer.weight)
    True
    """
    if scale < 0:
        raise OptionError(f"scale: expected a number of at least 0, got {scale}")
    weights = {name: weight.clone() for name, weight in parameters(model).items()}
    fixed = of_norms(model) | {name for name, weight in model.named_parameters() if not weight.requires_grad}
    spread = {name: scale * weight.square().mean().sqrt() for name, weight in weights.items() if name not in fixed}
    return Perturbation(weights, spread)
