"""Mahalanobis distances to the nearest class means, summed over several layers."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from caveat.scores import mahalanobis
from caveat.scores.mahalanobis import Mahalanobis
from caveat.scores.pooled import Pooled
from caveat.types import Labels, Logits, Score

__all__ = ["MahalanobisOfLayers", "fit"]


@dataclass(frozen=True)
class MahalanobisOfLayers:
    """A fitted score, in [0, inf)."""

    parts: tuple[Mahalanobis, ...]
    sizes: tuple[int, ...]

    def __call__(self, probed: Float[Tensor, "n k"], logits: Logits) -> Score:
        """A d x d product per layer and sample."""
        split = probed.split(list(self.sizes), dim=1)
        scores = [part(features) for part, features in zip(self.parts, split, strict=True)]
        return sum(scores[1:], scores[0])


def fit(
    probed: Float[Tensor, "n k"], logits: Logits, labels: Labels, probe: Pooled, *, ridge: float = 1e-6
) -> MahalanobisOfLayers:
    """Fit `mahalanobis` on every layer's activations, averaged over pixels.

    Sees textures and noise that the last layer has forgotten. Costs the layers' averages in the same pass. Formula:
    sum over layers of min_c (x - m_c)^T S^-1 (x - m_c), all weights 1 (the source learns them from OOD data).

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or an activation is NaN or infinite.

    Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
    NeurIPS 2018 (arXiv 1807.03888).
    """
    split = probed.split(list(probe.sizes), dim=1)
    return MahalanobisOfLayers(tuple(mahalanobis.fit(features, labels, ridge=ridge) for features in split), probe.sizes)
