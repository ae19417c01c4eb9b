"""Neural collapse: how well the centred feature points along the weights of the predicted class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["NeuralCollapse", "fit"]


@dataclass(frozen=True)
class NeuralCollapse:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    mean: Float[Tensor, " d"]
    alpha: float

    def __call__(self, features: Features) -> Score:
        """2 c products of length d a sample."""
        predicted = (features @ self.weight.T + self.bias).argmax(dim=1, keepdim=True)
        centred = features - self.mean
        length = centred.norm(dim=1).clamp_min(torch.finfo(features.dtype).tiny)
        along = (centred @ self.weight.T).gather(1, predicted).squeeze(1) / length
        return -along - self.alpha * features.abs().sum(dim=1) if self.alpha else -along


def fit(features: Features, labels: Labels, head: Head, *, alpha: float = 0.0) -> NeuralCollapse:
    """Fit the mean of in-distribution features.

    Cheap; follows from neural collapse, so for networks trained to the end. `alpha` also counts short features as
    foreign; its size depends on the network. Formula: -(x - m) . w_k / ||x - m|| - alpha ||x||_1, k the predicted
    class.

    Raises
    ------
    OptionError
        If `alpha` is negative.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Liu and Qin, Detecting Out-of-Distribution through the Lens of Neural Collapse, CVPR 2025
    (arXiv 2311.01479).
    """
    check(features, labels)
    if alpha < 0:
        raise OptionError(f"alpha: expected a number of at least 0, got {alpha}")
    return NeuralCollapse(*head, features.double().mean(dim=0).to(features.dtype), alpha)
