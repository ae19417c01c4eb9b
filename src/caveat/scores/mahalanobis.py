"""Mahalanobis distance to the nearest class mean, under one covariance shared by all classes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import Moments, cholesky, of
from caveat.types import Features, Labels, Score

__all__ = ["Mahalanobis", "fit", "from_moments"]


@dataclass(frozen=True)
class Mahalanobis:
    """A fitted score: squared distance to the nearest class mean, in [0, inf)."""

    whiten: Float[Tensor, "d d"]
    """Upper-triangular U with U^T U = covariance^-1: distances are Euclidean after x -> U x."""
    centre: Float[Tensor, " d"]
    means: Float[Tensor, "c d"]
    """Class means minus the centre, whitened."""

    def __call__(self, features: Features) -> Score:
        """Squared distance of every sample; one d x d product per sample, the rest is c x d."""
        white = (features - self.centre) @ self.whiten.T
        # the expanded square finds the nearest mean in one product; near it only the difference keeps its digits
        nearest = (self.means.square().sum(dim=1) - 2 * white @ self.means.T).argmin(dim=1)
        return (white - self.means[nearest]).square().sum(dim=1)


def fit(features: Features, labels: Labels, *, ridge: float = 1e-6) -> Mahalanobis:
    """Fit class means and the shared covariance on in-distribution data.

    Finds what lies off the clusters of the classes; among the best for OOD classes on small networks. Costs a
    d x d product per sample. Formula: min_c (x - m_c)^T S^-1 (x - m_c), S = covariance within classes, divided by n,
    plus `ridge` times its mean variance on the diagonal.

    Raises
    ------
    OptionError
        If `ridge` is negative, or 0 where the covariance has no inverse.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
    NeurIPS 2018 (arXiv 1807.03888) (there its negative).
    """
    return from_moments(of(features, labels), ridge=ridge, dtype=features.dtype)


def from_moments(moments: Moments, *, ridge: float = 1e-6, dtype: torch.dtype = torch.float32) -> Mahalanobis:
    """The same from moments gathered before (in one pass, or on several machines)."""
    factor = cholesky(moments.within, ridge, moments)
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    whiten = torch.linalg.solve_triangular(factor, identity, upper=False)
    means = (moments.means - moments.mean) @ whiten.T
    # contiguous, as a file gives it back: products round alike
    return Mahalanobis(whiten.to(dtype).contiguous(), moments.mean.to(dtype), means.to(dtype).contiguous())
