"""Variational rectified activation: energy after large activations are cut off and small ones set to 0."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.moments import check
from caveat.scores.react import quantile
from caveat.types import Features, Head, Labels, Score

__all__ = ["VariationalActivations", "fit"]


@dataclass(frozen=True)
class VariationalActivations:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    low: float
    high: float

    def __call__(self, features: Features) -> Score:
        """c products of length d a sample."""
        shaped = features.clamp_max(self.high).masked_fill(features < self.low, 0.0)
        return -torch.logsumexp(shaped @ self.weight.T + self.bias, dim=1)


def fit(
    features: Features, labels: Labels, head: Head, *, lower: float = 0.1, upper: float = 0.95
) -> VariationalActivations:
    """Fit both cut-offs: quantiles of all activations of in-distribution data.

    Two-sided `react`. Formula: -logsumexp(W g(x) + b), g(x) = 0 below the `lower` quantile, x between, the `upper`
    quantile above it.

    Raises
    ------
    OptionError
        If not 0 <= lower < upper <= 1.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Xu et al., VRA: Variational Rectified Activation for Out-of-distribution Detection, NeurIPS 2023
    (arXiv 2302.11716).
    """
    check(features, labels)
    if not 0 <= lower < upper <= 1:
        raise OptionError(f"lower, upper: expected 0 <= lower < upper <= 1, got {lower} and {upper}")
    low = quantile(features, lower)
    # one of the activations themselves: a rounding below it, so that the same input in another batch stays above
    return VariationalActivations(*head, low - 2.0**-16 * abs(low), quantile(features, upper))
