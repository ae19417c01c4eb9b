"""Heteroscedastic Gaussian likelihood: the network tells the mean and how noisy the label is."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.objectives._outputs import outputs_for
from caveat.scores.regression import log_variance

__all__ = ["heteroscedastic"]


def heteroscedastic(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *input"],
    labels: Float[Tensor, " n"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Mean Gaussian negative log-likelihood, the variance an output of the network.

    The outputs are (μ, s), s = log σ² softly kept in [-14, 14] (`scores.regression.log_variance`), so standardise the
    labels. Means can be learnt slowly where the noise is thought large: then see `beta_nll`. In nats, may be negative;
    nothing is drawn from the generator.

    Formula: ½ [exp(-s) (y - μ)² + s + log 2π].

    Source: Nix and Weigend, ICNN 1994; with s: Kendall and Gal, NeurIPS 2017, equation 8.

    Raises
    ------
    ModelError
        If the outputs are not `(n, 2)`.
    DataError
        If the labels are no real numbers `(n,)`.

    Example
    -------
    >>> y = torch.tensor([1.0])
    >>> round(heteroscedastic(nn.Identity(), torch.tensor([[0.0, 0.0]]), y, torch.Generator()).item(), 4)
    1.4189
    """
    del generator
    mean, raw = outputs_for(model, inputs, labels, what="mean and log variance", count=2).unbind(1)
    s = log_variance(raw)
    return (0.5 * ((-s).exp() * (labels - mean) ** 2 + s + math.log(2 * math.pi))).mean()
