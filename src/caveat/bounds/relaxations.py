"""What lies between two lines: linear lower and upper bounds of each operation that is not linear, on an interval.

One literal table, `RELAXATIONS`: a row per kind of operation, with what it makes of an interval.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from caveat.bounds.interval import DOUBLE, Interval, magnitude, of_count, unit_in
from caveat.bounds.region import Rows
from caveat.graph import CURVES, Curve, MaxPool, Operation, Relu, windows

__all__ = ["RELAXATIONS", "Lines", "Relaxed", "Winners"]

POINTS = 64
"""Places of an interval at which a curve is compared with a line; between them its second derivative bounds it."""
BENDS = {"gelu": 0.7979, "gelu_tanh": 0.81, "sigmoid": 0.0963, "silu": 0.5001, "tanh": 0.7699}
"""Upper bounds of the curves' second derivatives."""


@dataclass(frozen=True)
class Lines:
    """low_slope x + low_offset <= f(x) <= high_slope x + high_offset, for every value of every sample."""

    low_slope: Tensor
    high_slope: Tensor
    low_offset: Tensor | None
    """None: 0 throughout."""
    high_offset: Tensor | None

    def mapped(self, change: Callable[..., Tensor]) -> "Lines":
        """The same with every tensor changed."""
        low, high = (None if part is None else change(part) for part in (self.low_offset, self.high_offset))
        return Lines(change(self.low_slope), change(self.high_slope), low, high)

    def narrowed(self, x: Interval, dtype: torch.dtype) -> "Lines":
        """For coefficients of another type: offsets pay for the rounding of the slopes and of what is done with them.

        Products with slopes of 0 and 1 are not rounded.
        """
        unit, size = unit_in(dtype), magnitude(x)
        share = 2 * of_count(size[0].numel(), unit)

        def paid(slope: Tensor, offset: Tensor | None) -> Tensor:
            part = torch.where((slope == 0) | (slope == 1), 0, 4 * unit * slope.abs() * size)
            return part if offset is None else part + share * offset.abs()

        below, above = paid(self.low_slope, self.low_offset), paid(self.high_slope, self.high_offset)
        low, high = (0 if offset is None else offset for offset in (self.low_offset, self.high_offset))
        return Lines(
            self.low_slope.to(dtype), self.high_slope.to(dtype),
            (low - below).to(dtype) if self.low_offset is not None or bool(below.any()) else None,
            (high + above).to(dtype) if self.high_offset is not None or bool(above.any()) else None,
        )  # fmt: skip

    def back(self, coefficients: Tensor, rows: Rows, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Coefficients of what is bounded from below, and what the offsets add."""
        del shape
        positive = coefficients > 0
        slope = torch.where(positive, rows.pick(self.low_slope), rows.pick(self.high_slope))
        constant = coefficients.new_zeros(len(coefficients))
        if self.high_offset is not None:
            constant = constant + rows.dot(coefficients.clamp_max(0), self.high_offset)
        if self.low_offset is not None:
            constant = constant + rows.dot(coefficients.clamp_min(0), self.low_offset)
        return coefficients * slope, constant


@dataclass(frozen=True)
class Winners:
    """Of every window of a pooling one member: the maximum is at least it, and at most `high`, or it where it wins."""

    member: Tensor
    """Its place among the values of its channel."""
    wins: Tensor
    high: Tensor

    def mapped(self, change: Callable[..., Tensor]) -> "Winners":
        """As `Lines.mapped`."""
        return Winners(change(self.member), change(self.wins), change(self.high))

    def narrowed(self, x: Interval, dtype: torch.dtype) -> "Winners":
        """As `Lines.narrowed`."""
        del x
        share = 2 * of_count(self.high[0].numel(), unit_in(dtype))
        return Winners(self.member, self.wins, (self.high + share * self.high.abs()).to(dtype))

    def back(self, coefficients: Tensor, rows: Rows, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """As `Lines.back`."""
        member, wins, high = (rows.pick(part) for part in (self.member, self.wins, self.high))
        kept = torch.where((coefficients > 0) | wins, coefficients, 0)
        constant = ((coefficients - kept) * high).flatten(1).sum(1)
        back = coefficients.new_zeros(len(coefficients), shape[0], torch.Size(shape[1:]).numel())
        back = back.scatter_add(2, member.flatten(2), kept.flatten(2))
        return back.reshape(len(coefficients), *shape), constant


Relaxed = Lines | Winners


def relu(op: Relu, x: Interval) -> Lines:
    """The chord above, and below the line through 0 that leaves the smaller area: slope 1 if u >= -l, else the ReLU's.

    Formula: chord slope s = (u - a l) / (u - l), offset (a - s) l, for slope a below 0; it is exact where the sign is
    known. Where a > 1 the function is concave and the two change sides.
    """
    low, high = x
    below = torch.as_tensor(op.slope, dtype=low.dtype, device=low.device)
    across = (low < 0) & (high > 0)
    chord = torch.where(low >= 0, 1.0, below)
    width = torch.where(across, high - low, 1.0)  # no division by 0 in what is not taken: its gradient would be NaN
    slope = torch.where(across, (high - below * low) / width, chord)
    slack = 8 * DOUBLE * (low.abs() + high.abs()) * (1 + below.abs())
    offset = torch.where(across, (below - slope) * low, 0)
    line = torch.where(across, torch.where(high >= -low, 1.0, below), chord)
    if bool((below > 1).any()):
        convex = (below <= 1).expand_as(low)
        up, down = torch.where(across, slack, 0), torch.where(across, -slack, 0)
        return Lines(
            torch.where(convex, line, slope), torch.where(convex, slope, line),
            torch.where(convex, 0, offset + down), torch.where(convex, offset + up, 0),
        )  # fmt: skip
    return Lines(line, slope, None, torch.where(across, offset + slack, 0))


def curve(op: Curve, x: Interval) -> Lines:
    """The chord's slope on both sides, moved until nothing is left outside.

    Formula: offsets are least and largest f(x) - s x over 65 places, a step h apart, widened by max |f''| h^2 / 8:
    between two places a function leaves its chord by no more.
    """
    low, high = x
    function = CURVES[op.name]
    width = high - low
    slope = torch.where(width > 1e-6, (function(high) - function(low)) / width.clamp_min(1e-6), 0)
    steps = torch.linspace(0, 1, POINTS + 1, dtype=low.dtype, device=low.device)
    least, most = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
    for step in steps:
        place = low + step * width
        gap = function(place) - slope * place
        least, most = torch.minimum(least, gap), torch.maximum(most, gap)
    slack = BENDS[op.name] * (width / POINTS).square() / 8 + 32 * DOUBLE * (1 + low.abs() + high.abs())
    return Lines(slope, slope, least - slack, most + slack)


def max_pool(op: MaxPool, x: Interval) -> Winners:
    """Below, the member of largest lower bound; above, the largest upper bound, or that member where it beats all.

    Formula: max_i x_i >= x_j, j = argmax l; max_i x_i <= x_j if l_j >= u_i for all i != j, else <= max_i u_i.
    """
    low, high = (windows(end, op, -torch.inf) for end in x)
    member = low.argmax(-1, keepdim=True)
    others = high.scatter(-1, member, -torch.inf).amax(-1)
    count = x[0][0, 0].numel()
    places = torch.arange(count, dtype=x[0].dtype, device=x[0].device).reshape(1, 1, *x[0].shape[2:])
    place = windows(places.expand(1, x[0].shape[1], *x[0].shape[2:]), op, -1.0)
    where = place.expand(low.shape).gather(-1, member).squeeze(-1).long()
    return Winners(where, low.amax(-1) >= others, high.amax(-1))


def bent(op: Operation, x: Interval) -> Tensor:
    """Values whose bounds matter: where the operation is not linear on its interval."""
    if isinstance(op, Relu):
        return (x[0] < 0) & (x[1] > 0)
    return x[1] > x[0]


RELAXATIONS: dict[type, tuple[Callable[[Any, Interval], Relaxed], str]] = {
    Curve: (curve, "Singh et al., An abstract domain for certifying neural networks, POPL 2019; the offsets are ours"),
    MaxPool: (max_pool, "Singh et al., POPL 2019, section 4"),
    Relu: (relu, "Singh et al., POPL 2019, section 4; Zhang et al., NeurIPS 2018 (CROWN), adaptive slopes"),
}
"""For each operation that is not linear its relaxation, and where it is from."""
