"""Evidential regression: what a network predicts that answers with a normal-inverse-gamma distribution."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caveat.errors import DataError

__all__ = ["Evidence", "aleatoric", "epistemic", "evidence"]

FLOOR = 1e-6
"""Added to what must be positive: softplus is 0 in float32 below -104, and its logarithm is taken."""


@dataclass(frozen=True)
class Evidence:
    """Mean and precision of the label are themselves uncertain: normal-inverse-gamma (γ, ν, α, β)."""

    mean: Float[Tensor, "*shape"]
    """Gamma: the prediction."""
    precision: Float[Tensor, "*shape"]
    """Nu, positive: virtual samples that speak for the mean."""
    shape: Float[Tensor, "*shape"]
    """Alpha, above 1: half the virtual samples that speak for the variance."""
    rate: Float[Tensor, "*shape"]
    """Beta, positive."""


def evidence(outputs: Float[Tensor, "*s n 4"]) -> Evidence:
    """The distribution from the four outputs of a network: γ, and by softplus ν, α - 1 and β.

    Raises
    ------
    DataError
        If the last axis has another length than 4.
    """
    if outputs.shape[-1] != 4:
        raise DataError(f"outputs: expected a last axis of 4, got {tuple(outputs.shape)}: another objective's?")
    mean, precision, shape, rate = outputs.unbind(-1)
    positive = [functional.softplus(part) + FLOOR for part in (precision, shape, rate)]
    return Evidence(mean, positive[0], positive[1] + 1, positive[2])


def aleatoric(found: Evidence) -> Float[Tensor, "*shape"]:
    """Expected variance of the label: noise. In the labels' units squared.

    Formula: E[σ²] = β / (α - 1). Source: Amini et al., NeurIPS 2020, equation 5.
    """
    return found.rate / (found.shape - 1)


def epistemic(found: Evidence) -> Float[Tensor, "*shape"]:
    """Variance of the mean: uncertainty. Its scale is set by the regulariser as much as by the data (see the sources).

    Formula: Var[μ] = β / (ν (α - 1)). Source: Amini et al., NeurIPS 2020, equation 5; on what it is worth: Meinert,
    Gawlikowski and Lavin, The unreasonable effectiveness of deep evidential regression, AAAI 2023.
    """
    return aleatoric(found) / found.precision
