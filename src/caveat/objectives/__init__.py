"""What training minimises: `(model, inputs, labels, generator) -> scalar`."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from caveat.objectives.cross_entropy import cross_entropy

__all__ = ["OBJECTIVES", "Objective", "cross_entropy"]

Objective: TypeAlias = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""Of the model, a batch of inputs, its labels and the source of all randomness, the value to minimise."""

OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy}
