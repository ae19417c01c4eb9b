"""What training minimises: `(model, inputs, labels, generator) -> scalar`."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from caveat.objectives.beta_nll import beta_nll
from caveat.objectives.cross_entropy import cross_entropy
from caveat.objectives.evidential import evidential
from caveat.objectives.heteroscedastic import heteroscedastic
from caveat.objectives.mixture_density import mixture_density
from caveat.objectives.pixel_cross_entropy import pixel_cross_entropy
from caveat.objectives.quantile import quantile

__all__ = [
    "FOR_PIXELS",
    "FOR_REGRESSION",
    "OBJECTIVES",
    "Objective",
    "beta_nll",
    "cross_entropy",
    "evidential",
    "heteroscedastic",
    "mixture_density",
    "pixel_cross_entropy",
    "quantile",
]

Objective: TypeAlias = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""Of the model, a batch of inputs, its labels and the source of all randomness, the value to minimise."""

OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy}

FOR_REGRESSION: dict[str, Objective] = {
    "heteroscedastic": heteroscedastic,
    "beta_nll": beta_nll,
    "mixture_density": mixture_density,
    "evidential": evidential,
    "quantile": quantile,
}
"""Labels are real numbers `(n,)`, outputs the parameters of a distribution `(n, k)`."""

FOR_PIXELS: dict[str, Objective] = {"pixel_cross_entropy": pixel_cross_entropy}
"""Labels are maps `(n, h, w)`, outputs logits `(n, c, h, w)`."""
