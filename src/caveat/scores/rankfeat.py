"""RankFeat: energy after the strongest rank-one part of the feature maps is taken away."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.pooled import HeadEnergy, averaged
from caveat.types import Head, Look

__all__ = ["RankProbe", "fit", "probe", "without_strongest"]

STEPS = 20


@dataclass(frozen=True)
class RankProbe:
    """A probe: the features that the head would see without the strongest rank-one part of the last maps."""

    layers: tuple[str, ...]
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n d"]:
        """`STEPS` products of the maps with a vector: a power iteration, no singular value decomposition."""
        return without_strongest(look.activations[self.layers[0]])


def probe(activations: Mapping[str, Tensor], features: Float[Tensor, "n d"]) -> RankProbe:
    """The probe for the layer whose maps, averaged over pixels, are the head's `features`.

    Raises
    ------
    DataError
        If no layer is: the features of this model are not averages of maps.
    """
    return RankProbe((averaged(activations, features),))


def without_strongest(maps: Float[Tensor, "n d h w"], *, steps: int = STEPS) -> Float[Tensor, "n d"]:
    """Mean over pixels of F - s u v^T, with s, u, v the largest singular value of F `(d, h w)` and its vectors."""
    flat = maps.flatten(2)
    right = flat.square().sum(dim=1).sqrt()  # of non-negative maps already close to v; never orthogonal to it
    left = flat.sum(dim=2)
    for _ in range(max(1, steps)):
        left = torch.nn.functional.normalize(torch.einsum("ndp,np->nd", flat, right), dim=1)
        right = torch.einsum("ndp,nd->np", flat, left)
    # F^T u = s v, so s u v^T = u (F^T u)^T
    return flat.mean(dim=2) - left * right.mean(dim=1, keepdim=True)


def fit(head: Head) -> HeadEnergy:
    """Take the head; nothing else is fitted.

    For deep networks, whose maps are dominated by one singular value on foreign inputs. Formula:
    -logsumexp(W mean(F - s u v^T) + b).

    Source: Song et al., RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection, NeurIPS 2022
    (arXiv 2209.08590).
    """
    return HeadEnergy(*head)
