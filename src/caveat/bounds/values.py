"""What is known of a network's values over a region."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from caveat.bounds.interval import Interval
from caveat.bounds.region import Between, Region
from caveat.bounds.relaxations import Relaxed
from caveat.graph import Graph

__all__ = ["Known", "Slopes", "Split"]

Slopes = Mapping[int, Tensor]
"""For ReLUs, by their place in the list, the share in [0, 1] of the lower line between the ReLU's slope and 1."""
Split = Mapping[int, Tensor]
"""For arguments of ReLUs, by their place in the list, 1 or -1 where only that sign is looked at, else 0."""


@dataclass(frozen=True)
class Known:
    """What is known of a network's values over a region."""

    graph: Graph
    region: Region | Between
    bounds: dict[int, Interval] = field(default_factory=dict)
    """By place in the list of values."""
    rounding: dict[int, Tensor] = field(default_factory=dict)
    relaxed: dict[int, Relaxed] = field(default_factory=dict)
    """By place of the result."""
    dtype: torch.dtype = torch.float64
    """Of the coefficients."""
    lost: dict[int, Tensor] = field(default_factory=dict)
    """By place of the result, what coefficients of each sample lose that are too small for their type."""

    def shape(self, place: int) -> tuple[int, ...]:
        """Of a sample's value."""
        return self.graph.nodes[place - 1].shape if place else self.graph.input_shape

    def of(self, samples: Tensor) -> "Known":
        """That of some of the samples, also several times."""
        count = len(self.region.low)
        found = self.mapped(lambda value: value[samples] if len(value) == count else value)
        return replace(found, region=self.region.of(samples))

    def light(self) -> "Known":
        """In float32, with nothing paid for that: no bounds, but near to them."""
        found = self.mapped(lambda value: value.float() if value.is_floating_point() else value)
        return replace(
            found, graph=self.graph.to(torch.float32, self.region.low.device), region=self.region.light(),
            dtype=torch.float32,
        )  # fmt: skip

    def mapped(self, change: Callable[..., Tensor]) -> "Known":
        """The same with every tensor changed."""
        bounds = {k: (change(low), change(high)) for k, (low, high) in self.bounds.items()}
        rounding = {k: change(value) for k, value in self.rounding.items()}
        relaxed = {k: value.mapped(change) for k, value in self.relaxed.items()}
        return replace(self, bounds=bounds, rounding=rounding, relaxed=relaxed)
