"""What an attack without a radius gives back: inputs, whether they do what was wanted, and how far they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from caveat.attacks.network import broken
from caveat.types import Mask

__all__ = ["Attacked", "measured", "nearer"]


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


ROUNDS = 10
"""Of bisection: what comes back is too far by at most a thousandth of the way that was too long."""


def nearer(
    model: nn.Module, centres: Tensor, found: Tensor, labels: Tensor, success: Tensor, *, targeted: bool = False
) -> Tensor:
    """Points that reached their end, brought back towards their centres as far as they stay there, by bisection.

    Where the answers change more than once on the way, to one of these places.
    """
    found = found.clone()
    rows = success.nonzero().squeeze(1)
    if not len(rows):
        return found
    near, far = torch.zeros_like(found[rows]).flatten(1)[:, 0], None
    far = torch.ones_like(near)
    shape = (-1, *[1] * (centres.ndim - 1))
    for share in [near, *[None] * ROUNDS]:  # first the centre itself: it may be answered wrongly already
        middle = (near + far) / 2 if share is None else share
        points = torch.lerp(centres[rows], found[rows], middle.reshape(shape))
        ended = broken(model, points, labels[rows], targeted=targeted)
        near, far = torch.where(ended, near, middle), torch.where(ended, middle, far)
    moved = torch.lerp(centres[rows], found[rows], far.reshape(shape))
    still = broken(model, moved, labels[rows], targeted=targeted)
    found[rows[still]] = moved[still]
    return found


def measured(centres: Tensor, found: Tensor, success: Tensor, steps: Tensor) -> Attacked:
    """Put failures back to where they came from, and measure the rest."""
    rows = success.reshape(-1, *[1] * (centres.ndim - 1))
    inputs = torch.where(rows, found, centres)
    change = (inputs - centres).flatten(1)
    l1, l2, linf = (torch.linalg.vector_norm(change, norm, dim=1) for norm in (1, 2, torch.inf))
    return Attacked(inputs, success, (change != 0).sum(1), l1, l2, linf, steps)
