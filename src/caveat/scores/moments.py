"""Class moments of features: what the Gaussian scores are fitted from, and all they need.

Counts, means and one pooled covariance, in float64, gathered in one pass and mergeable from shards.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import DataError, OptionError
from caveat.precision import all_finite, wide
from caveat.types import Features, Labels

__all__ = ["Moments", "merge", "of"]

CHUNK = 8192
OPERATIONS = 3000
"""Rounding errors of a feature, and a hundred times as much: distances along it then move by less than 1e-4."""


@dataclass(frozen=True)
class Moments:
    """Counts and means per class, and the scatter around the class means; float64.

    Only classes that occur are kept; `classes` holds their labels, ascending.
    """

    classes: Tensor
    counts: Float[Tensor, " c"]
    means: Float[Tensor, "c d"]
    scatter: Float[Tensor, "d d"]
    """Sum over samples of (x - mean of its class)(x - mean of its class)^T."""
    eps: float = torch.finfo(torch.float64).eps
    """Rounding of one operation on the features, by their type."""

    @property
    def within(self) -> Float[Tensor, "d d"]:
        """Covariance within classes: the scatter divided by n."""
        return self.scatter / self.counts.sum()

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean of all samples."""
        return self.counts @ self.means / self.counts.sum()

    @property
    def total(self) -> Float[Tensor, "d d"]:
        """Covariance around the mean of all samples, divided by n: within + between classes."""
        offsets = (self.means - self.mean) * (self.counts / self.counts.sum()).sqrt().unsqueeze(1)
        return self.within + offsets.T @ offsets

    @property
    def spread(self) -> Float[Tensor, ""]:
        """Mean over features of their variance in all data."""
        return self.total.diagonal().mean()

    @property
    def noise(self) -> Float[Tensor, ""]:
        """Variance of a feature that rounding alone may make.

        A network's answer to one input moves by some rounding errors with the batch it is in. Along directions in which
        the data do not vary (fewer samples than features, nearly constant features) less would weigh that as a signal.
        """
        return (OPERATIONS * self.eps) ** 2 * (self.spread + self.mean.square().mean())


def of(features: Features, labels: Labels) -> Moments:
    """Gather the moments of `features`, in chunks: memory beyond the result does not grow with n.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.
    """
    check(features, labels)
    classes, positions = torch.unique(labels.to(features.device), return_inverse=True)
    counts = torch.bincount(positions, minlength=len(classes)).double()
    means = torch.zeros(len(classes), features.shape[1], dtype=torch.float64, device=features.device)
    for start in range(0, len(features), CHUNK):
        part = slice(start, start + CHUNK)
        means.index_add_(0, positions[part], features[part].double())
    means /= counts.unsqueeze(1)
    scatter = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
    for start in range(0, len(features), CHUNK):
        part = slice(start, start + CHUNK)
        centred = features[part].double() - means[positions[part]]
        scatter.addmm_(centred.T, centred)
    return Moments(classes, counts, means, scatter, torch.finfo(features.dtype).eps)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together (Chan, Golub and LeVeque 1979), exact up to rounding."""
    classes = torch.unique(torch.cat([a.classes, b.classes]))
    counts = torch.zeros(len(classes), dtype=torch.float64, device=a.means.device)
    sums = torch.zeros(len(classes), a.means.shape[1], dtype=torch.float64, device=a.means.device)
    for part in (a, b):
        rows = torch.searchsorted(classes, part.classes)
        counts.index_add_(0, rows, part.counts)
        sums.index_add_(0, rows, part.means * part.counts.unsqueeze(1))
    means = sums / counts.unsqueeze(1)
    scatter = a.scatter + b.scatter
    for part in (a, b):
        offsets = (part.means - means[torch.searchsorted(classes, part.classes)]) * part.counts.sqrt().unsqueeze(1)
        scatter = scatter + offsets.T @ offsets
    return Moments(classes, counts, means, scatter, max(a.eps, b.eps))


def check(features: Tensor, labels: Tensor, name: str = "features") -> None:
    """Refuse what nothing can be fitted on."""
    if len(features) == 0:
        raise DataError(f"{name}: expected at least one sample to fit on, got an empty set")
    if len(features) != len(labels):
        raise DataError(f"labels: expected one per sample ({len(features)}), got {len(labels)}")
    if wide(features) is not features or not features.is_floating_point():
        raise DataError(
            f"{name}: expected single or double precision, got {features.dtype}, whose rounding a fit would learn: "
            "give .float() of it"
        )
    for start in range(0, len(features), CHUNK):
        if not all_finite(features[start : start + CHUNK]):
            raise DataError(f"{name}: expected finite numbers, got NaN or infinity in samples {start} onwards")


def cholesky(covariance: Float[Tensor, "*k d d"], ridge: float, moments: Moments) -> Tensor:
    """Lower factor of covariances with `ridge` times their mean variance added to the diagonal, the noise at least.

    Dead features must not make them singular. Where a covariance has no variance at all (samples of a class that
    coincide, or a single one), a millionth of the mean variance of all data is taken for it.

    Raises
    ------
    OptionError
        If `ridge` is negative, or too small for a covariance without an inverse.
    """
    if not ridge >= 0:
        raise OptionError(f"ridge: expected a number of at least 0, got {ridge}")
    spread = moments.spread if moments.spread > 0 else torch.ones_like(moments.spread)  # 0: all are one point
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    added = torch.maximum(ridge * torch.maximum(variance, 1e-6 * spread), moments.noise)
    size = covariance.shape[-1]
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    ridged = covariance + added[..., None, None] * identity
    factor, failed = torch.linalg.cholesky_ex(ridged)
    # what is left of a feature's variance when the ones before it are known: rounding alone can keep that above 0
    left = factor.diagonal(dim1=-2, dim2=-1).square().amin(dim=-1)
    rounding = size * torch.finfo(ridged.dtype).eps * ridged.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    if failed.any() or not (left > rounding).all():
        raise OptionError(f"ridge: the features' covariance is singular with {ridge}; choose a larger one, like 1e-6")
    return factor
