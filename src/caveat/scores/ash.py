"""Activation shaping: energy after each sample's smallest activations are removed (ASH-P, ASH-B, ASH-S)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.once import shared
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["ShapedActivations", "binarised", "fit", "largest", "pruned", "scaled", "shaped"]

Variant = Literal["p", "b", "s"]
Shape = Literal["p", "b", "s", "scale"]
"""What becomes of activations: as in `fit`; `scale` multiplies all of them by the factor of s."""


@dataclass(frozen=True)
class ShapedActivations:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    share: float
    variant: Shape

    def __call__(self, features: Features) -> Score:
        """A selection among d activations and c products of length d a sample."""
        return -torch.logsumexp(shaped(features, self.share, self.variant) @ self.weight.T + self.bias, dim=1)


def pruned(features: Features, labels: Labels, head: Head, *, share: float = 0.65) -> ShapedActivations:
    """ASH-P: the smallest activations become 0. See `fit`."""
    return fit(features, labels, head, variant="p", share=share)


def binarised(features: Features, labels: Labels, head: Head, *, share: float = 0.65) -> ShapedActivations:
    """ASH-B: the largest activations share the sum of all equally, the others become 0. See `fit`."""
    return fit(features, labels, head, variant="b", share=share)


def scaled(features: Features, labels: Labels, head: Head, *, share: float = 0.65) -> ShapedActivations:
    """ASH-S: as ASH-P, then scaled by exp(sum of all / sum of the largest). See `fit`."""
    return fit(features, labels, head, variant="s", share=share)


def fit(
    features: Features, labels: Labels, head: Head, *, variant: Variant = "s", share: float = 0.65
) -> ShapedActivations:
    """Take the head; nothing else is fitted.

    For wide networks with many small activations. Formula: -logsumexp(W g(x) + b); of a sample's activations the
    smallest, `share` of all, become 0; the others stay (p), become sum(x)/k each (b), or are multiplied by
    exp(sum(x) / sum of those that stay) (s).

    Raises
    ------
    OptionError
        If `share` is not in [0, 1) or the variant is none of p, b, s.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, ICLR 2023
    (arXiv 2209.09858).
    """
    check(features, labels)
    check_share(share)
    if variant not in ("p", "b", "s"):
        raise OptionError(f"variant: expected p, b or s, got {variant!r}")
    return ShapedActivations(*head, share, variant)


def shaped(features: Features, share: float, shape: Shape) -> Features:
    """What the head sees of a sample's activations; a selection among them."""
    values, indices = shared(largest, features, share)
    total = features.sum(dim=1, keepdim=True)
    if shape == "b":
        return total * kept_share(features, values)
    kept = features if shape == "scale" else torch.zeros_like(features).scatter(1, indices, values)
    return kept if shape == "p" else kept * ratio(total, values, features.shape[1]).exp()


def largest(features: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Values and places of each sample's largest activations, 1 - `share` of all; unsorted."""
    kept = features.shape[1] - round(features.shape[1] * share)
    return features.topk(max(1, kept), dim=1, sorted=False)


def kept_share(features: Tensor, values: Tensor) -> Tensor:
    """1/k for each of the k largest activations; equal ones at the border share what is left for them.

    Of a sparse sample many zeros are at the border: which of them a selection takes would be chance.
    """
    border = values.amin(dim=1, keepdim=True)
    tied, size = features == border, values.shape[1]
    left = (values == border).sum(dim=1, keepdim=True).to(features.dtype) / tied.sum(dim=1, keepdim=True)
    return torch.where(tied, left / size, (features > border).to(features.dtype) / size)


def ratio(total: Tensor, values: Tensor, size: int) -> Tensor:
    """Sum of all `size` activations over that of the largest; 1 where there are none.

    Of activations that are not negative it is at most `size` over the number of the largest; of others it is cut there.
    """
    part = values.sum(dim=1, keepdim=True)
    return torch.where(part == 0, torch.ones_like(part), total / part).clamp_max(size / values.shape[1])


def check_share(share: float) -> None:
    """Refuse a share that leaves nothing."""
    if not 0 <= share < 1:
        raise OptionError(f"share: expected a number in [0, 1), got {share}")
