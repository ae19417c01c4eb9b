"""Length of what of a feature lies outside the principal space of in-distribution data."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from caveat.once import shared
from caveat.scores.vim import outside, principal
from caveat.types import Features, Head, Labels, Score

__all__ = ["Residual", "fit"]


@dataclass(frozen=True)
class Residual:
    """A fitted score, in [0, inf)."""

    origin: Float[Tensor, " d"]
    residual: Float[Tensor, "d r"]
    """Orthonormal basis of the residual space."""

    def __call__(self, features: Features) -> Score:
        """One product with the d x r basis a sample."""
        return shared(outside, features, self.origin, self.residual)


def fit(features: Features, labels: Labels, head: Head, *, dimension: int | None = None) -> Residual:
    """Fit the principal space (of `dimension`) of in-distribution features around the head's own origin.

    The part of `vim` that looks at features alone. Formula: ||R^T (x - o)||, o = -W^+ b, R the space of the smallest
    eigenvalues of (x - o)(x - o)^T / n; default dimension as in `vim`.

    Raises
    ------
    OptionError
        If `dimension` is not in [1, r - 1] for features of rank r.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022 (arXiv 2203.10807).
    """
    return Residual(*shared(principal, features, labels, head, dimension))
