"""Distance to the mean of all known features: a score to copy and change."""

from dataclasses import dataclass

import torch  # noqa: F401  # for the doctest
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import check
from caveat.types import Features, Labels, Score

__all__ = ["DistanceToMean", "fit"]


@dataclass(frozen=True)
class DistanceToMean:
    """A fitted score: distance to the mean, in [0, inf)."""

    mean: Float[Tensor, " d"]

    def __call__(self, features: Features) -> Score:
        """One difference of length d per sample."""
        return (features - self.mean).norm(dim=1)


def fit(features: Features, labels: Labels) -> DistanceToMean:
    """Fit the mean of in-distribution data.

    When to use it and what it costs: never, it is a skeleton; d operations a sample. Formula: ||x - m||.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: author, title, venue (arXiv number), equation.

    >>> known = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    >>> fit(known, torch.tensor([0, 1]))(torch.tensor([[1.0, 3.0]]))
    tensor([3.])
    """
    check(features, labels)
    return DistanceToMean(features.mean(dim=0))
