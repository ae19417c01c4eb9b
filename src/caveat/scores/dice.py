"""DICE: energy of a head that keeps only the weights that contribute most."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.ash import check_share
from caveat.scores.moments import check
from caveat.scores.react import quantile
from caveat.types import Features, Head, Labels, Score

__all__ = ["SparsifiedHead", "fit"]


@dataclass(frozen=True)
class SparsifiedHead:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    """The head's weight with the small contributions set to 0."""
    bias: Float[Tensor, " c"]

    def __call__(self, features: Features) -> Score:
        """c products of length d a sample."""
        return -torch.logsumexp(features @ self.weight.T + self.bias, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, share: float = 0.7) -> SparsifiedHead:
    """Fit which weights contribute, from the mean of in-distribution features.

    For heads of many weights, of which foreign inputs excite the unimportant ones. Formula: -logsumexp((W * M) x + b),
    M masks the weights with the smallest contributions W * mean(x), `share` of all.

    Raises
    ------
    OptionError
        If `share` is not in [0, 1).
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Sun and Li, DICE: Leveraging Sparsification for Out-of-Distribution Detection, ECCV 2022
    (arXiv 2111.09805).
    """
    check(features, labels)
    check_share(share)
    weight, bias = head
    contribution = weight.double() * features.double().mean(dim=0)
    kept = contribution > quantile(contribution, share)
    return SparsifiedHead(weight * kept, bias)
