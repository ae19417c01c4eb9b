"""ViM: a virtual logit from what of a feature lies outside the principal space of in-distribution data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.once import shared
from caveat.scores.moments import CHUNK, check, of
from caveat.types import Features, Head, Labels, Score

__all__ = ["VirtualLogit", "fit"]


@dataclass(frozen=True)
class VirtualLogit:
    """A fitted score: virtual logit minus logsumexp of the logits, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    origin: Float[Tensor, " d"]
    residual: Float[Tensor, "d r"]
    """Orthonormal basis of the residual space."""
    scale: Float[Tensor, ""]

    def __call__(self, features: Features) -> Score:
        """One product with the d x r residual basis and one with the head, per sample."""
        virtual = self.scale * shared(outside, features, self.origin, self.residual)
        return virtual - torch.logsumexp(features @ self.weight.T + self.bias, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, dimension: int | None = None) -> VirtualLogit:
    """Fit the principal space (of `dimension`) of in-distribution features around the head's own origin.

    Joins what the logits and what the features know: strong on textures and far-away data. Formula:
    a ||R^T (x - o)|| - logsumexp(W x + b), o = -W^+ b, R the space of the smallest eigenvalues of
    (x - o)(x - o)^T / n, a = |mean of the largest logit| / mean of ||R^T (x - o)|| on in-distribution data. Default
    dimension: 1000 of 2048 or more features, 512 of 768 or more, else half of them; half of the rank of the features
    where that is no more than this, as with dead units or few samples.

    Raises
    ------
    OptionError
        If `dimension` is not in [1, r - 1] for features of rank r: no residual but rounding would be left.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022 (arXiv 2203.10807).
    """
    origin, residual = shared(principal, features, labels, head, dimension)
    weight, bias = head
    norms = torch.zeros((), dtype=torch.float64, device=features.device)
    logits = torch.zeros_like(norms)
    for start in range(0, len(features), CHUNK):
        part = features[start : start + CHUNK]
        norms += outside(part, origin, residual).double().sum()
        logits += (part @ weight.T + bias).amax(dim=1).double().sum()
    return VirtualLogit(weight, bias, origin, residual, (logits.abs() / norms).to(features.dtype))


def outside(features: Features, origin: Float[Tensor, " d"], residual: Float[Tensor, "d r"]) -> Float[Tensor, " n"]:
    """Length of what of each feature lies outside the principal space."""
    return ((features - origin) @ residual).norm(dim=1)


def principal(features: Features, labels: Labels, head: Head, dimension: int | None) -> tuple[Tensor, Tensor]:
    """Origin of the head and orthonormal basis of the space outside the principal one of `dimension`."""
    check(features, labels)
    weight, bias = head
    size = features.shape[1]
    # rows that add up to 0, but for the rounding of single precision, leave a direction that must not be inverted
    rounding = max(weight.shape) * torch.finfo(torch.float32).eps
    origin = -(torch.linalg.pinv(weight.double(), rtol=rounding) @ bias.double())
    moments = shared(of, features, labels)
    values, vectors = torch.linalg.eigh(moments.total + torch.outer(moments.mean - origin, moments.mean - origin))
    # of a sum of squares: what the features' own type, and the eigenvalues' in double precision, can't tell from 0
    rounding = max(16 * size * torch.finfo(features.dtype).eps ** 2, size * torch.finfo(torch.float64).eps)
    rank = int((values > rounding * values.sum()).sum())
    if dimension is None:
        dimension = 1000 if size >= 2048 else 512 if size >= 768 else size // 2
        dimension = dimension if dimension < rank else rank // 2
    if not 1 <= dimension < rank:
        raise OptionError(
            f"dimension: expected a principal space of 1 to {rank - 1} of {size} features, which have rank {rank}, got "
            f"{dimension}: outside of it there would be rounding alone"
        )
    # eigh sorts ascending: the first d - dimension columns span the residual space
    residual = vectors[:, : size - dimension].to(features.dtype)
    return origin.to(features.dtype), residual.contiguous()
