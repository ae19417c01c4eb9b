"""Multinomial counts: the bootstrap of samples that were counted in cells."""

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["multinomial"]

_FEW = 8
"""Samples per cell up to which drawing them one by one is the faster way (measured)."""


def multinomial(
    counts: Float64[Tensor, " m"], *, replicas: int, generator: torch.Generator
) -> Float64[Tensor, "replicas m"]:
    """Draw `sum(counts)` samples with replacement from cells of these counts, `replicas` times.

    Few samples are drawn one by one. Of many, the total goes down a binary tree of the cells, each node split between
    its halves by one binomial draw: the same distribution, at a cost of O(replicas * m) however many were counted.
    """
    cells, size = counts.numel(), int(counts.sum())
    if 0 < size <= _FEW * cells:
        owner = torch.arange(cells, device=generator.device).repeat_interleave(counts.long().to(generator.device))
        chosen = torch.randint(size, (replicas, size), generator=generator, device=generator.device)
        place = owner[chosen] + cells * torch.arange(replicas, device=generator.device)[:, None]
        return place.flatten().bincount(minlength=replicas * cells).view(replicas, cells).to(counts)
    leaves = pad(counts.to(generator.device), (0, (1 << (cells - 1).bit_length()) - cells))
    levels = [leaves]
    while levels[-1].numel() > 1:
        levels.append(levels[-1].view(-1, 2).sum(1))
    drawn = levels[-1].repeat(replicas, 1)
    for children in reversed(levels[:-1]):
        left, parent = children[0::2], children.view(-1, 2).sum(1)
        # A parent of zero has drawn zero; the clamp only keeps 0/0 away.
        chosen = torch.binomial(drawn, (left / parent.clamp(min=1)).expand_as(drawn), generator=generator)
        drawn = torch.stack((chosen, drawn - chosen), dim=-1).flatten(1)
    return drawn[:, :cells].to(counts.device)
