"""SCALE: energy of features scaled by how much of them is in the largest activations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.ash import check_share, shaped
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["ScaledActivations", "fit"]


@dataclass(frozen=True)
class ScaledActivations:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    share: float

    def __call__(self, features: Features) -> Score:
        """A selection among d activations and c products of length d a sample."""
        return -torch.logsumexp(shaped(features, self.share, "scale") @ self.weight.T + self.bias, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, share: float = 0.65) -> ScaledActivations:
    """Take the head; nothing else is fitted.

    ASH-S without the pruning, which its authors found to harm. Formula: -logsumexp(W x exp(sum(x) / sum of its
    largest entries, 1 - `share` of all) + b).

    Raises
    ------
    OptionError
        If `share` is not in [0, 1).
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Xu et al., Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement, ICLR 2024
    (arXiv 2310.00227).
    """
    check(features, labels)
    check_share(share)
    return ScaledActivations(*head, share)
