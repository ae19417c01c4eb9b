"""LTS: energy of logits scaled by how much of the features is in the largest activations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.ash import check_share, largest, ratio
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["LogitScaling", "fit"]


@dataclass(frozen=True)
class LogitScaling:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    share: float

    def __call__(self, features: Features) -> Score:
        """A selection among d activations and c products of length d a sample."""
        positive = features.relu()
        values, _ = largest(positive, self.share)
        factor = ratio(positive.sum(dim=1, keepdim=True), values, features.shape[1]).square()
        return -torch.logsumexp((features @ self.weight.T + self.bias) * factor, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, share: float = 0.95) -> LogitScaling:
    """Take the head; nothing else is fitted.

    Cheap. Formula: -logsumexp(S^2 (W x + b)), S = sum(x+) / sum of its largest entries, 1 - `share` of all.

    Raises
    ------
    OptionError
        If `share` is not in [0, 1).
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Djurisic et al., Logit Scaling for Out-of-Distribution Detection, 2024 (arXiv 2409.01175).
    """
    check(features, labels)
    check_share(share)
    return LogitScaling(*head, share)
