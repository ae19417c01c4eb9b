"""ViM: a virtual logit from what of a feature lies outside the principal space of in-distribution data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.moments import CHUNK, check
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
        virtual = self.scale * ((features - self.origin) @ self.residual).norm(dim=1)
        return virtual - torch.logsumexp(features @ self.weight.T + self.bias, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, dimension: int | None = None) -> VirtualLogit:
    """Fit the principal space (of `dimension`) of in-distribution features around the head's own origin.

    Joins what the logits and what the features know: strong on textures and far-away data. Formula:
    a ||R^T (x - o)|| - logsumexp(W x + b), o = -W^+ b, R the space of the smallest eigenvalues of
    (x - o)(x - o)^T / n, a = |mean of the largest logit| / mean of ||R^T (x - o)|| on in-distribution data. Default
    dimension:
    1000 of 2048 or more features, 512 of 768 or more, else half of them.

    Raises
    ------
    OptionError
        If `dimension` is not in [1, d - 1]: no residual space would be left.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022 (arXiv 2203.10807).
    """
    origin, residual = principal(features, labels, head, dimension)
    weight, bias = head
    norms = torch.zeros((), dtype=torch.float64, device=features.device)
    lengths, logits = torch.zeros_like(norms), torch.zeros_like(norms)
    for start in range(0, len(features), CHUNK):
        part = features[start : start + CHUNK]
        norms += ((part - origin) @ residual).norm(dim=1).double().sum()
        lengths += (part - origin).norm(dim=1).double().sum()
        logits += (part @ weight.T + bias).amax(dim=1).double().sum()
    # features that all lie in the principal space leave only rounding to scale by: then the residual says nothing
    rounding = 4 * features.shape[1] ** 0.5 * torch.finfo(features.dtype).eps * lengths
    scale = logits.abs() / norms if norms > rounding else torch.zeros_like(norms)
    return VirtualLogit(weight, bias, origin, residual, scale.to(features.dtype))


def principal(features: Features, labels: Labels, head: Head, dimension: int | None) -> tuple[Tensor, Tensor]:
    """Origin of the head and orthonormal basis of the space outside the principal one of `dimension`."""
    check(features, labels)
    weight, bias = head
    size = features.shape[1]
    if dimension is None:
        dimension = 1000 if size >= 2048 else 512 if size >= 768 else size // 2
    if not 1 <= dimension < size:
        raise OptionError(
            f"dimension: expected a principal space of 1 to {size - 1} of {size} features, got {dimension}"
        )
    # rows that add up to 0, but for the rounding of single precision, leave a direction that must not be inverted
    rounding = max(weight.shape) * torch.finfo(torch.float32).eps
    origin = -(torch.linalg.pinv(weight.double(), rtol=rounding) @ bias.double())
    second = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), CHUNK):
        centred = features[start : start + CHUNK].double() - origin
        second.addmm_(centred.T, centred)
    # eigh sorts ascending: the first d - dimension columns span the residual space
    residual = torch.linalg.eigh(second / len(features)).eigenvectors[:, : size - dimension].to(features.dtype)
    return origin.to(features.dtype), residual.contiguous()
