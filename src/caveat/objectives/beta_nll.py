"""β-NLL: the Gaussian likelihood whose means are learnt everywhere, noisy places too."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.objectives._outputs import outputs_for
from caveat.objectives._ranges import fraction
from caveat.scores.regression import log_variance

__all__ = ["beta_nll"]


def beta_nll(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *input"],
    labels: Float[Tensor, " n"],
    generator: torch.Generator,
    *,
    beta: float = 0.5,
) -> Float[Tensor, ""]:
    """Mean Gaussian negative log-likelihood, every sample weighted by σ^(2β), the weight taken as constant.

    For when `heteroscedastic` explains what it has not learnt as noise. The gradient of the mean is that of plain
    likelihood for β = 0, of squared error for β = 1. Its value is no likelihood: compare models by `metrics`. The
    outputs are (μ, s = log σ²) as there; nothing is drawn from the generator.

    Formula: mean of stop(σ^(2β)) · ½ [exp(-s) (y - μ)² + s + log 2π].

    Source: Seitzer, Tavakoli, Antic and Martius, On the pitfalls of heteroscedastic uncertainty estimation, ICLR 2022,
    equation 4.

    Raises
    ------
    OptionError
        If `beta` is not in [0, 1].
    ModelError
        If the outputs are not `(n, 2)`.
    DataError
        If the labels are no real numbers `(n,)`.
    """
    del generator
    fraction("beta", beta)
    mean, raw = outputs_for(model, inputs, labels, what="mean and log variance", count=2).unbind(1)
    s = log_variance(raw)
    each = 0.5 * ((-s).exp() * (labels - mean) ** 2 + s + math.log(2 * math.pi))
    return ((beta * s.detach()).exp() * each).mean()
