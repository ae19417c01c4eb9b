"""Mahalanobis distance to the nearest class, less that to the whole data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import Moments, cholesky, of
from caveat.types import Features, Labels, Score

__all__ = ["RelativeMahalanobis", "fit", "from_moments"]


@dataclass(frozen=True)
class RelativeMahalanobis:
    """A fitted score: nearest class distance minus background distance, in (-inf, inf)."""

    centre: Float[Tensor, " d"]
    directions: Float[Tensor, "r d"]
    """The difference of the two precisions is directions^T directions, of rank r < c."""
    slopes: Float[Tensor, "c d"]
    offsets: Float[Tensor, " c"]

    def __call__(self, features: Features) -> Score:
        """Both distances at once, for r + c products of length d a sample: no d x d matrix is needed."""
        centred = features - self.centre
        common = (centred @ self.directions.T).square().sum(dim=1)
        return common + (centred @ self.slopes.T + self.offsets).amin(dim=1)


def fit(features: Features, labels: Labels, *, ridge: float = 1e-6) -> RelativeMahalanobis:
    """Fit class means, the shared covariance and one background Gaussian on in-distribution data.

    Better than `mahalanobis` for OOD classes that resemble the in-distribution ones: directions that say nothing about
    the class cancel. Formula: min_c [(x - m_c)^T S^-1 (x - m_c)] - (x - m)^T S_0^-1 (x - m), S within classes, S_0 of
    all data, both divided by n. Since S_0 = S + between-class covariance, S^-1 - S_0^-1 has rank < c and the quadratic
    form is evaluated through it.

    Raises
    ------
    OptionError
        If `ridge` is negative, or 0 where the covariance has no inverse.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021
    (arXiv 2106.09022).
    """
    return from_moments(of(features, labels), ridge=ridge, dtype=features.dtype)


def from_moments(moments: Moments, *, ridge: float = 1e-6, dtype: torch.dtype = torch.float32) -> RelativeMahalanobis:
    """The same from moments gathered before (in one pass, or on several machines)."""
    factor = cholesky(moments.within, ridge, moments)
    means = moments.means - moments.mean
    between = means * (moments.counts / moments.counts.sum()).sqrt().unsqueeze(1)
    # Woodbury: S^-1 - (S + B^T B)^-1 = V^T (I + B V^T)^-1 V with V = B S^-1
    projected = torch.cholesky_solve(between.T, factor).T
    core = torch.eye(len(between), dtype=torch.float64, device=means.device) + between @ projected.T
    directions = torch.linalg.solve_triangular(torch.linalg.cholesky(core), projected, upper=False)
    class_precision = torch.cholesky_solve(means.T, factor).T
    return RelativeMahalanobis(
        centre=moments.mean.to(dtype),
        directions=directions.to(dtype).contiguous(),  # as a file gives it back: products round alike
        slopes=(-2 * class_precision).to(dtype).contiguous(),
        offsets=(class_precision * means).sum(dim=1).to(dtype),
    )
