"""Negative log-likelihood of features under one Gaussian per class."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.once import shared
from caveat.scores.moments import CHUNK, cholesky, of
from caveat.types import Features, Labels, Score

__all__ = ["GaussianMixture", "fit"]


@dataclass(frozen=True)
class GaussianMixture:
    """A fitted score, in nats, in (-inf, inf)."""

    centre: Float[Tensor, " d"]
    basis: Float[Tensor, "d r"]
    """Orthonormal directions in which every class has a covariance of its own."""
    means: Float[Tensor, "c r"]
    whiten: Float[Tensor, "c r r"]
    log_weight: Float[Tensor, " c"]
    """Log of mixing weight and normalisation."""
    rest: Float[Tensor, ""]
    """Variance in each of the other directions, shared by all classes."""

    def __call__(self, features: Features) -> Score:
        """d x r and c x r x r products a sample."""
        # in double precision: `outside` is the small difference of two sums, and divided by a small variance
        centred = features.double() - self.centre.double()
        inner = centred @ self.basis.double()
        squares = [
            ((inner - mean.double()) @ whiten.double().T).square().sum(dim=1)
            for mean, whiten in zip(self.means, self.whiten, strict=True)
        ]
        likelihood = torch.logsumexp(self.log_weight.double() - 0.5 * torch.stack(squares, dim=1), dim=1)
        outside = (centred.square().sum(dim=1) - inner.square().sum(dim=1)).clamp_min(0)
        return (0.5 * outside / self.rest.double() - likelihood).to(features.dtype)


def fit(features: Features, labels: Labels, *, dimension: int = 128, ridge: float = 1e-4) -> GaussianMixture:
    """Fit mean, covariance and weight of every class on in-distribution data.

    The best score on a small network of digits (docs/gallery/digits-osr.md). Every class has its own covariance in the
    `dimension` directions in which features vary most, and one variance for all in the others, so that it can be fitted
    from fewer samples than features. Formula: -log sum_c w_c N(x; m_c, S_c), covariances divided by n, plus `ridge`
    times their mean variance on the diagonal.

    Raises
    ------
    OptionError
        If `dimension` is not positive, or `ridge` negative, or 0 where a covariance has no inverse.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Tipping and Bishop, Mixtures of Probabilistic Principal Component Analysers, Neural Computation 1999;
    as an OOD score with full covariances: Mukhoti et al., Deep Deterministic Uncertainty, CVPR 2023 (arXiv 2102.11582).
    """
    if dimension < 1:
        raise OptionError(f"dimension: expected a positive number, got {dimension}")
    moments = shared(of, features, labels)
    size = features.shape[1]
    dimension = min(dimension, size)
    values, vectors = torch.linalg.eigh(moments.total)
    basis = vectors[:, size - dimension :]
    # where no direction is left the value does not matter: the largest one keeps rounding down
    rest = values[: size - dimension].clamp_min(0).mean() if dimension < size else values[-1]
    rest = torch.maximum(rest, torch.maximum(ridge * moments.spread, moments.noise))
    rest = torch.where(rest > 0, rest, torch.ones_like(rest))
    count = len(moments.classes)
    means = (moments.means - moments.mean) @ basis
    scatter = torch.zeros(count, dimension, dimension, dtype=torch.float64, device=features.device)
    place = torch.searchsorted(moments.classes, labels.to(features.device))
    for start in range(0, len(features), CHUNK):
        part = slice(start, start + CHUNK)
        inner = (features[part].double() - moments.mean) @ basis
        for label in place[part].unique().tolist():
            own = inner[place[part] == label] - means[label]
            scatter[label].addmm_(own.T, own)
    factors = cholesky(scatter / moments.counts[:, None, None], ridge, moments)
    identity = torch.eye(dimension, dtype=torch.float64, device=features.device).expand(count, -1, -1)
    whiten = torch.linalg.solve_triangular(factors, identity, upper=False)
    log_weight = (
        (moments.counts / moments.counts.sum()).log()
        - factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        - 0.5 * size * math.log(2 * math.pi)
        - 0.5 * (size - dimension) * rest.log()
    )
    parts = (moments.mean, basis.contiguous(), means, whiten, log_weight, rest)
    return GaussianMixture(*(part.to(features.dtype) for part in parts))
