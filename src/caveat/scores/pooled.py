"""Activations of several layers, averaged over pixels or tokens: what scores over layers are fitted from."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.types import Look

__all__ = ["Pooled", "mean", "probe"]


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
