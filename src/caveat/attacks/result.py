"""What an attack without a radius gives back: inputs, whether they do what was wanted, and how far they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from caveat.types import Mask

__all__ = ["Attacked", "measured"]


@dataclass(frozen=True)
class Attacked:
    """Where `success` is false the input is the one that was given, and all distances are 0."""

    inputs: Shaped[Tensor, "n ..."]
    success: Mask
    l0: Int[Tensor, " n"]
    """Number of values that changed."""
    l1: Float[Tensor, " n"]
    l2: Float[Tensor, " n"]
    linf: Float[Tensor, " n"]
    steps: Int[Tensor, " n"]
    """Forward and backward passes spent on the sample."""


def measured(centres: Tensor, found: Tensor, success: Tensor, steps: Tensor) -> Attacked:
    """Put failures back to where they came from, and measure the rest."""
    rows = success.reshape(-1, *[1] * (centres.ndim - 1))
    inputs = torch.where(rows, found, centres)
    change = (inputs - centres).flatten(1)
    l1, l2, linf = (torch.linalg.vector_norm(change, norm, dim=1) for norm in (1, 2, torch.inf))
    return Attacked(inputs, success, (change != 0).sum(1), l1, l2, linf, steps)
