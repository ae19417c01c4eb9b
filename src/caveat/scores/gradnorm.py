"""Length of the gradient that would make the answer uniform, in closed form: no backward pass."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["GradientNorm", "fit"]


@dataclass(frozen=True)
class GradientNorm:
    """A fitted score, in (-inf, 0]."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    temperature: float

    def __call__(self, features: Features) -> Score:
        """c products of length d a sample."""
        probs = ((features @ self.weight.T + self.bias) / self.temperature).softmax(dim=1)
        return -(probs - 1 / probs.shape[1]).abs().sum(dim=1) * features.abs().sum(dim=1) / self.temperature


def fit(features: Features, labels: Labels, head: Head, *, temperature: float = 1.0) -> GradientNorm:
    """Take the head; nothing else is fitted.

    The gradient of the cross-entropy to the uniform distribution with respect to the head's weight is an outer product,
    so its L1 norm is a product of two: pytorch-ood 0.4.0 runs a backward pass for every sample. Formula:
    -||softmax(l/T) - 1/c||_1 ||x||_1 / T.

    Raises
    ------
    OptionError
        If `temperature` is not positive.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Huang et al., On the Importance of Gradients for Detecting Distributional Shifts in the Wild, NeurIPS 2021
    (arXiv 2110.00218).
    """
    check(features, labels)
    if not temperature > 0:
        raise OptionError(f"temperature: expected a positive number, got {temperature}")
    return GradientNorm(*head, temperature)
