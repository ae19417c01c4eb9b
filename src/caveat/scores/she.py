"""Simplified Hopfield energy: inner product with the stored pattern of the predicted class."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["HopfieldEnergy", "fit"]


@dataclass(frozen=True)
class HopfieldEnergy:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    patterns: Float[Tensor, "c d"]

    def __call__(self, features: Features) -> Score:
        """2 c products of length d a sample."""
        predicted = (features @ self.weight.T + self.bias).argmax(dim=1, keepdim=True)
        return -(features @ self.patterns.T).gather(1, predicted).squeeze(1)


def fit(features: Features, labels: Labels, head: Head) -> HopfieldEnergy:
    """Store the mean feature of the correctly answered samples of each class.

    Cheap; sees features that are short or point elsewhere. A class without a correct answer gets the mean of its
    samples, one without samples the mean of all. Formula: -x . S_k, k the predicted class.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Zhang et al., Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization with Modern
    Hopfield Energy, ICLR 2023.
    """
    check(features, labels)
    weight, bias = head
    right = (features @ weight.T + bias).argmax(dim=1) == labels
    patterns = features.double().mean(dim=0).repeat(len(weight), 1)
    for label in range(len(weight)):
        own = labels == label
        chosen = own & right if (own & right).any() else own
        if chosen.any():
            patterns[label] = features[chosen].double().mean(dim=0)
    return HopfieldEnergy(weight, bias, patterns.to(features.dtype))
