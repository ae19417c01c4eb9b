"""One minus the cosine to the nearest class mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from caveat.scores.moments import Moments, of
from caveat.types import Features, Labels, Score

__all__ = ["Cosine", "fit", "from_moments"]


@dataclass(frozen=True)
class Cosine:
    """A fitted score, in [0, 2]."""

    directions: Float[Tensor, "c d"]
    """Class means, each of length 1."""

    def __call__(self, features: Features) -> Score:
        """c products of length d a sample."""
        return 1 - (normalize(features, dim=1) @ self.directions.T).amax(dim=1)


def fit(features: Features, labels: Labels) -> Cosine:
    """Fit the class means of in-distribution features.

    Cheap, and blind to the length of features: for networks trained with normalised features. Formula:
    1 - max_c cos(x, m_c).

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Techapanurak et al., Hyperparameter-Free Out-of-Distribution Detection Using Cosine Similarity, ACCV 2020
    (arXiv 1905.10628); with class means: Tack et al., CSI, NeurIPS 2020 (arXiv 2007.08176).
    """
    return from_moments(of(features, labels), dtype=features.dtype)


def from_moments(moments: Moments, *, dtype: torch.dtype = torch.float32) -> Cosine:
    """The same from moments gathered before (in one pass, or on several machines)."""
    return Cosine(normalize(moments.means, dim=1).to(dtype))
