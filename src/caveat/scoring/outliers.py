"""Inputs that are known to be OOD: noise in the range of in-distribution inputs."""

from functools import partial

import torch
from torch import Tensor

from caveat.batches import Inputs, Several

__all__ = ["COUNT", "like"]

COUNT = 200
"""As many as the paper on meta classification takes."""


def like(inputs: Inputs, generator: torch.Generator, *, count: int = COUNT) -> list[tuple[Inputs, Tensor]]:
    """One batch of `count` inputs of the shape of `inputs`, with the labels -1.

    Every number is uniform between the least and the greatest of its channel (of the second axis) in `inputs`; whole
    numbers, such as tokens, stay whole.
    """
    drawn = partial(_uniform, generator=generator, count=count)
    return [(inputs.each(drawn) if isinstance(inputs, Several) else drawn(inputs), torch.full((count,), -1))]


def _uniform(inputs: Tensor, generator: torch.Generator, count: int) -> Tensor:
    axes = [0, *range(2, inputs.ndim)]
    low, high = inputs.amin(dim=axes, keepdim=True), inputs.amax(dim=axes, keepdim=True)
    drawn = torch.rand(count, *inputs.shape[1:], generator=generator, dtype=torch.float64).to(inputs.device)
    if inputs.is_floating_point():
        return (low + drawn * (high - low)).to(inputs.dtype)
    return (low + (drawn * (high - low + 1)).floor()).to(inputs.dtype)
