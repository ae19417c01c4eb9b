"""Activations of layers, averaged over pixels or tokens: what scores over layers and maps are fitted from."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import DataError
from caveat.types import Logits, Look, Score

__all__ = ["HeadEnergy", "Pooled", "averaged", "mean", "probe"]


@dataclass(frozen=True)
class Pooled:
    """A probe: the mean activations of its layers, side by side."""

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    """How many numbers each layer gives."""
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n k"]:
        """One average per layer and channel."""
        return torch.cat([mean(look.activations[name]) for name in self.layers], dim=1)


def probe(activations: Mapping[str, Tensor]) -> Pooled:
    """The probe for these layers, whose outputs on a few inputs are given."""
    return Pooled(tuple(activations), tuple(mean(found).shape[1] for found in activations.values()))


def mean(found: Tensor) -> Tensor:
    """Average over pixels `(n, c, h, w)` or tokens `(n, t, c)`; vectors stay."""
    if found.ndim == 4:
        return found.mean(dim=(2, 3))
    return found.mean(dim=1) if found.ndim == 3 else found


def averaged(activations: Mapping[str, Tensor], features: Float[Tensor, "n d"]) -> str:
    """The layer whose maps, averaged over pixels, are the head's `features`.

    Raises
    ------
    DataError
        If no layer is: the features of this model are not averages of maps.
    """
    for name, found in activations.items():
        if found.ndim != 4 or found[0, 0].numel() < 2 or found.shape[1] != features.shape[1]:
            continue
        if torch.allclose(found.mean(dim=(2, 3)), features, rtol=1e-3, atol=1e-4):
            return name
    raise DataError("model: its features are no averages of feature maps, which this score changes before the average")


@dataclass(frozen=True)
class HeadEnergy:
    """A score in (-inf, inf): the energy of the logits that the head gives for what a probe made of the features."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]

    def __call__(self, probed: Float[Tensor, "n d"], logits: Logits) -> Score:
        """c products of length d a sample."""
        return -torch.logsumexp(probed @ self.weight.T + self.bias, dim=1)
