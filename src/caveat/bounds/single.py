"""Coefficients in float32: half the time and memory, and the rounding of all that is done with them is paid for.

A second `Known` beside the one in float64, in which coefficients that are carried back pay for their own products and
sums as they pay for those of the network: in `rounding`, and in the offsets of the lines.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from caveat.bounds.interval import SMALLEST, Carried, magnitude, of_count, roundoff, unit_in
from caveat.bounds.region import Between, Region
from caveat.bounds.values import Known
from caveat.graph import EVALUATE, Graph, MaxPool, Pad, Relu

__all__ = ["Single", "begun", "unit_of_products"]

UNIT = unit_in(torch.float32)


@dataclass(frozen=True)
class Single:
    """What is known, for coefficients in float32; it grows as that in float64 does."""

    known: Known
    unit: float
    """Of the network."""
    uses: Counter[int]
    """How often each value is an argument."""

    def follow(self, found: Known, k: int) -> None:
        """Add what was found of the result of the k-th operation."""
        node = found.graph.nodes[k]
        count = math.prod(node.shape)
        self._pay(found, k, count)
        sizes = torch.cat([magnitude(found.bounds[place]).flatten(1) for place in node.arguments], dim=1).sum(1)
        self.known.lost[k + 1] = SMALLEST * (count + 4) * (count + sizes)
        if k + 1 not in found.relaxed:
            return
        (place,) = node.arguments
        low, high = found.bounds[place]
        self.known.relaxed[k + 1] = found.relaxed[k + 1].narrowed((low, high), torch.float32)
        plain = isinstance(node.operation, Relu) and not torch.as_tensor(node.operation.slope).any()
        if plain and place and self.uses[place] == 1:
            alive = (high > 0).flatten(1).sum(1)  # of the others all coefficients are 0
            self._pay(found, place - 1, alive.reshape(-1, *[1] * (high.ndim - 1)))

    def _pay(self, found: Known, k: int, count: int | Tensor) -> None:
        """What is due for so many coefficients of the result of the k-th operation."""
        node = found.graph.nodes[k]
        values = [found.bounds[place] for place in node.arguments]
        parts = [roundoff(node.operation, self.unit, *values, carried=Carried(UNIT, count))]
        if isinstance(node.operation, MaxPool):  # windows that overlap
            size = EVALUATE[MaxPool](node.operation, magnitude(values[0]))
            parts.append(of_count(math.prod(node.operation.kernel), UNIT) * size)
        if self.uses[k + 1] > 1:  # one more sum, of two coefficients
            parts.append(2 * UNIT * magnitude(found.bounds[k + 1]))
        due = [part for part in parts if part is not None]
        if due:
            summed = 1 + 2 * of_count(math.prod(node.shape), UNIT)
            self.known.rounding[k + 1] = (summed * torch.stack(torch.broadcast_tensors(*due)).sum(0)).float()


def unit_of_products(device: torch.device) -> float:
    """Half of the epsilon to which PyTorch may round the factors of products in float32, as it is set now."""
    precision = torch.get_float32_matmul_precision()
    if precision == "medium":
        return unit_in(torch.bfloat16)
    narrow = precision == "high" or (device.type == "cuda" and torch.backends.cudnn.allow_tf32)
    return unit_in(torch.float16) if narrow else UNIT  # TF32 has as many digits as float16


def begun(graph: Graph, region: Region | Between, unit: float) -> Single | None:
    """Of the region alone; None where float32 is not used.

    That is for networks that compute in more than float32, where products in float32 may be computed in less (TF32,
    bfloat16), and where a value is used more than twice: then sums of coefficients may cancel, which nothing pays for.
    """
    uses, device = Counter(place for node in graph.nodes for place in node.arguments), region.low.device
    exact = unit_of_products(device) == UNIT
    filled = any(isinstance(node.operation, Pad) and node.operation.value for node in graph.nodes)
    if unit < UNIT or not exact or filled or max(uses.values(), default=0) > 2:
        return None
    found = Known(graph.to(torch.float32, device), region, dtype=torch.float32)
    size = magnitude((region.low, region.high))
    found.lost[0] = SMALLEST * size[0].numel() * (1 + size.flatten(1).sum(1))
    if uses[0] > 1:
        found.rounding[0] = (2 * UNIT * size).float()
    return Single(found, unit, uses)
