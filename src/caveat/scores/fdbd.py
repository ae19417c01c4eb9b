"""Distance to the decision boundaries, relative to the distance from the mean feature."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["BoundaryDistance", "fit"]


@dataclass(frozen=True)
class BoundaryDistance:
    """A fitted score, in (-inf, 0]."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    mean: Float[Tensor, " d"]
    gaps: Float[Tensor, "c c"]
    """Distances between the rows of the head's weight; infinite on the diagonal and between equal rows."""

    def __call__(self, features: Features) -> Score:
        """c products of length d a sample."""
        logits = features @ self.weight.T + self.bias
        top, predicted = logits.max(dim=1, keepdim=True)
        distances = ((top - logits) / self.gaps[predicted.squeeze(1)]).sum(dim=1) / (logits.shape[1] - 1)
        return -distances / (features - self.mean).norm(dim=1).clamp_min(torch.finfo(features.dtype).eps)


def fit(features: Features, labels: Labels, head: Head) -> BoundaryDistance:
    """Fit the mean of in-distribution features.

    Cheap and without options. Formula: -mean over c of |l_k - l_c| / (||w_k - w_c|| ||x - m||), k the predicted class.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Liu and Qin, Fast Decision Boundary based Out-of-Distribution Detector, ICML 2024 (arXiv 2312.11536).
    """
    check(features, labels)
    weight, bias = head
    gaps = torch.cdist(weight.double(), weight.double(), compute_mode="donot_use_mm_for_euclid_dist")
    gaps = gaps.masked_fill(gaps == 0, torch.inf)
    return BoundaryDistance(weight, bias, features.double().mean(dim=0).to(features.dtype), gaps.to(features.dtype))
