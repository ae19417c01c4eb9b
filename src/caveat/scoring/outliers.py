"""Inputs that are known to be OOD: noise in the range of in-distribution inputs."""

import torch
from torch import Tensor

__all__ = ["COUNT", "like"]

COUNT = 200
"""As many as the paper on meta classification takes."""


def like(inputs: Tensor, generator: torch.Generator, *, count: int = COUNT) -> list[tuple[Tensor, Tensor]]:
    """One batch of `count` inputs of the shape of `inputs`, with the labels -1.

    Every number is uniform between the least and the greatest of its channel (of the second axis) in `inputs`; whole
    numbers, such as tokens, stay whole.
    """
    axes = [0, *range(2, inputs.ndim)]
    low, high = inputs.amin(dim=axes, keepdim=True), inputs.amax(dim=axes, keepdim=True)
    drawn = torch.rand(count, *inputs.shape[1:], generator=generator, dtype=torch.float64).to(inputs.device)
    if inputs.is_floating_point():
        made = (low + drawn * (high - low)).to(inputs.dtype)
    else:
        made = (low + (drawn * (high - low + 1)).floor()).to(inputs.dtype)
    return [(made, torch.full((count,), -1))]
