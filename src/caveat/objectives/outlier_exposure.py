"""Outlier exposure: uniform answers on outliers, beside ordinary training."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.data.outliers import Outliers, uniform_like
from caveat.objectives._ranges import at_least
from caveat.types import Labels

__all__ = ["OutlierExposure"]


@dataclass(frozen=True)
class OutlierExposure:
    """Cross-entropy plus `weight` times the cross-entropy to the uniform distribution on outliers.

    The strongest training for OOD inputs that resemble the outliers shown; give it a set of real ones by
    `data.outliers.taken_from(images)`. With noise, as by default, it is the confidence loss of Lee et al. One forward
    pass over twice the batch. Formula: mean CE(x) + weight mean -(1/c) sum_k log p_k(z), the second at least log c.

    Raises
    ------
    OptionError
        If `weight` is negative.

    Source: Hendrycks, Mazeika and Dietterich, Deep Anomaly Detection with Outlier Exposure, ICLR 2019 (arXiv
    1812.04606), weight 0.5; Lee et al., Training Confidence-calibrated Classifiers, ICLR 2018 (arXiv 1711.09325).
    """

    weight: int | float = 0.5
    outliers: Outliers = uniform_like

    def __post_init__(self) -> None:
        at_least("weight", self.weight, 0)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        if not self.weight:
            return functional.cross_entropy(model(inputs), labels)
        drawn = self.outliers(inputs, generator)
        known, ood = model(torch.cat([inputs, drawn])).split([len(inputs), len(drawn)])
        return functional.cross_entropy(known, labels) - self.weight * ood.log_softmax(dim=1).mean()
