"""Mixture density network: the label's distribution may have several peaks."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.errors import ModelError
from caveat.objectives._outputs import outputs_for
from caveat.scores.regression import log_variance

__all__ = ["mixture_density"]


def mixture_density(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *input"],
    labels: Float[Tensor, " n"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of a mixture of K Gaussians, all of it an output of the network.

    For labels that can be this or that. The 3K outputs are K logits of the weights, K means and K values of log σ²,
    softly kept in [-14, 14]; with K = 1 it is `heteroscedastic`. Components can die: start with spread-out biases of
    the means. `scores.regression.from_densities` reads the outputs. In nats; nothing is drawn from the generator.

    Formula: -log Σ_k π_k N(y; μ_k, σ_k²).

    Source: Bishop, Mixture density networks, 1994, equations 22 to 29.

    Raises
    ------
    ModelError
        If the outputs are not `(n, 3K)`.
    DataError
        If the labels are no real numbers `(n,)`.
    """
    del generator
    outputs = outputs_for(model, inputs, labels, what="K logits, K means and K log variances")
    if outputs.shape[1] % 3 or not outputs.shape[1]:
        raise ModelError(f"model: expected 3K outputs (logits, means, log variances), got {outputs.shape[1]}")
    logits, mean, raw = outputs.chunk(3, dim=1)
    s = log_variance(raw)
    normal = -0.5 * ((-s).exp() * (labels[:, None] - mean) ** 2 + s + math.log(2 * math.pi))
    return -(logits.log_softmax(1) + normal).logsumexp(1).mean()
