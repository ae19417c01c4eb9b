"""CEDA: low confidence on noise, beside ordinary training."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.attacks import losses
from caveat.data.outliers import Outliers, permuted_then_blurred
from caveat.objectives._ranges import at_least
from caveat.types import Labels

__all__ = ["Ceda", "together"]


@dataclass(frozen=True)
class Ceda:
    """Cross-entropy plus `weight` times the mean highest log-confidence on outliers.

    Networks of ReLU are confident far away from their data; this makes them uncertain where noise is, and only there.
    One forward pass over twice the batch. Formula: mean CE(x) + weight mean max_k log p_k(z), the second in [-log c,
    0]; z by `outliers` from the batch. Clean and noisy inputs share one pass, so that batch norm sees both.

    Raises
    ------
    OptionError
        If `weight` is negative.

    Source: Hein, Andriushchenko and Bitterwolf, Why ReLU Networks Yield High-Confidence Predictions Far Away From the
    Training Data and How to Mitigate the Problem, CVPR 2019 (arXiv 1812.05720), section 4.
    """

    weight: int | float = 1.0
    outliers: Outliers = permuted_then_blurred

    def __post_init__(self) -> None:
        at_least("weight", self.weight, 0)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        if not self.weight:
            return functional.cross_entropy(model(inputs), labels)
        return together(model, inputs, labels, self.outliers(inputs, generator), self.weight)


def together(
    model: nn.Module, inputs: Tensor, labels: Tensor, outliers: Tensor, weight: int | float
) -> Float[Tensor, ""]:
    """Cross-entropy on inputs and confidence on outliers, in one pass."""
    known, ood = model(torch.cat([inputs, outliers])).split([len(inputs), len(outliers)])
    sure = losses.confidence(ood, ood.argmax(dim=1)).mean()
    return functional.cross_entropy(known, labels) + weight * sure
