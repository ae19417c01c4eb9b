"""Evidential regression: one network, one pass, noise and uncertainty as the parameters of a distribution."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.objectives._outputs import outputs_for
from caveat.objectives._ranges import at_least
from caveat.scores.evidential import evidence

__all__ = ["evidential"]


def evidential(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *input"],
    labels: Float[Tensor, " n"],
    generator: torch.Generator,
    *,
    weight: float = 0.01,
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of a Student t, plus a price on evidence for what was wrong.

    The four outputs become a normal-inverse-gamma distribution by `scores.evidential.evidence`, which also gives noise
    and uncertainty. One network, but the likelihood alone leaves ν and β undetermined (only β (1 + ν) / ν is seen in
    the data): the size of the uncertainty comes from `weight`, its order may still serve. Standardise the labels.
    Nothing is drawn from the generator.

    Formula: ½ log(π/ν) - α log Ω + (α + ½) log(ν (y - γ)² + Ω) + log Γ(α) - log Γ(α + ½), Ω = 2β (1 + ν),
    plus weight · |y - γ| (2ν + α).

    Source: Amini, Schwarting, Soleimany and Rus, Deep evidential regression, NeurIPS 2020, equations 8 and 9.

    Raises
    ------
    OptionError
        If `weight` is negative.
    ModelError
        If the outputs are not `(n, 4)`.
    DataError
        If the labels are no real numbers `(n,)`.
    """
    del generator
    at_least("weight", weight, 0)
    found = evidence(outputs_for(model, inputs, labels, what="mean and three raw parameters", count=4))
    nu, alpha, error = found.precision, found.shape, labels - found.mean
    omega = 2 * found.rate * (1 + nu)
    nll = (
        0.5 * (math.pi / nu).log()
        - alpha * omega.log()
        + (alpha + 0.5) * (nu * error**2 + omega).log()
        + alpha.lgamma()
        - (alpha + 0.5).lgamma()
    )
    return (nll + weight * error.abs() * (2 * nu + alpha)).mean()
