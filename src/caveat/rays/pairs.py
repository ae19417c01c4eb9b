"""A ray alpha x through a network: every unit is slope alpha + offset between two breakpoints.

Slopes and offsets go through the network as one batch, slopes first, `(2n, ...)`: a linear map treats both alike and
its bias belongs to the offsets.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from caveat.graph import (
    EVALUATE,
    AvgPool,
    Concat,
    Conv,
    Flip,
    Graph,
    Linear,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Relu,
    Reshape,
    Rules,
    Scale,
    Slice,
    Sum,
    windows,
)

__all__ = ["Piece", "piece"]

NEGLIGIBLE = 1e-12  # a slope below this share of the layer's largest is rounding, and counts as none
SAME = 1e-12  # two values of a window that differ by less than this share tie

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Piece:
    """The affine piece on one side of a point of each ray."""

    slopes: Float[Tensor, "n c"]
    offsets: Float[Tensor, "n c"]
    """logits(alpha x) = slopes alpha + offsets within the piece."""
    end: Float[Tensor, " n"]
    """Where it ends: to the right the next breakpoint, or inf; to the left the one before, or -inf."""
    ahead: Int[Tensor, " n"]
    """How many units would change on that side, were all as in this piece: about the number of pieces there."""
    last: Float[Tensor, " n"]
    """The largest alpha at which a unit would change, were all as in this piece: of the outermost piece, its start."""

    def of(self, rows: Tensor) -> "Piece":
        """Those of some of the rays."""
        parts = (self.slopes, self.offsets, self.end, self.ahead, self.last)
        return Piece(*(part[rows] for part in parts))


@dataclass
class _Walk:
    """What is looked for on the way."""

    at: Tensor
    """(n,); inf for the outermost piece."""
    side: Side
    end: Tensor
    ahead: Tensor
    last: Tensor

    def rows(self, like: Tensor) -> Tensor:
        """`at` in a shape that broadcasts over the values of a sample."""
        return self.at.reshape(-1, *[1] * (like.ndim - 1))

    def crossed(self, crossings: Tensor) -> None:
        """Note where units change; NaN where they never do."""
        flat, at = crossings.flatten(1), self.at[:, None]
        if self.side == "right":
            beyond = flat > at
            self.end = torch.minimum(self.end, torch.where(beyond, flat, math.inf).amin(1))
        else:
            beyond = flat < at
            self.end = torch.maximum(self.end, torch.where(beyond, flat, -math.inf).amax(1))
        self.ahead = self.ahead + beyond.sum(1)
        self.last = torch.maximum(self.last, flat.nan_to_num(-math.inf, math.inf, -math.inf).amax(1))


def piece(graph: Graph, inputs: Float[Tensor, "n ..."], at: Float[Tensor, " n"], *, side: Side = "right") -> Piece:
    """The piece to the right or left of `at` on the ray through each input; at inf the outermost piece.

    Costs about two forward passes. Graph and inputs should be of float64: what is computed are differences.
    """
    none = torch.full_like(at, math.inf if side == "right" else -math.inf)
    walk = _Walk(at, side, none, torch.zeros_like(at, dtype=torch.int64), torch.full_like(at, -math.inf))
    bound: Rules = {kind: functools.partial(rule, walk) for kind, rule in RULES.items()}
    logits: Tensor = graph.walk(bound, torch.cat([inputs, torch.zeros_like(inputs)]))
    slopes, offsets = logits.chunk(2)
    return Piece(slopes, offsets, walk.end, walk.ahead, walk.last)


def _plain(walk: _Walk, op: Any, *values: Tensor) -> Tensor:
    """A linear operation without a bias."""
    del walk
    return EVALUATE[type(op)](op, *values)


def _weights(walk: _Walk, op: Linear | Conv, x: Tensor) -> Tensor:
    mapped: Tensor = EVALUATE[type(op)](replace(op, bias=None), x)
    if op.bias is None:
        return mapped
    return _shifted(mapped, op.bias.reshape(-1, *[1] * (mapped.ndim - 2)) if isinstance(op, Conv) else op.bias)


def _scale(walk: _Walk, op: Scale, x: Tensor) -> Tensor:
    return _shifted(op.factor * x, op.shift)


def _pad(walk: _Walk, op: Pad, x: Tensor) -> Tensor:
    slopes, offsets = x.chunk(2)
    return torch.cat([functional.pad(slopes, op.widths), functional.pad(offsets, op.widths, value=op.value)])


def _shifted(x: Tensor, shift: float | Tensor) -> Tensor:
    slopes, offsets = x.chunk(2)
    return torch.cat([slopes, offsets + shift])


def _tidied(x: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes and offsets; a slope that is only rounding is 0."""
    slopes, offsets = x.chunk(2)
    largest = slopes.flatten(1).abs().amax(1).reshape(-1, *[1] * (slopes.ndim - 1))
    return torch.where(slopes.abs() <= NEGLIGIBLE * largest, 0, slopes), offsets


def _relu(walk: _Walk, op: Relu, x: Tensor) -> Tensor:
    """A unit is on to the right of its crossing -q/p if p > 0, to the left of it if p < 0; for p = 0 if q > 0.

    On which side of the crossing the point is is told from the crossing itself, not from the sign of a sum that is
    rounded, so that a walk from breakpoint to breakpoint cannot stand still.
    """
    slopes, offsets = _tidied(x)
    crossings = (-offsets / slopes).detach()
    at = walk.rows(crossings)
    passed = crossings <= at if walk.side == "right" else crossings < at
    on = torch.where(slopes == 0, offsets > 0, passed == (slopes > 0))
    walk.crossed(torch.where(slopes == 0, torch.nan, crossings))
    return torch.cat([torch.where(on, part, op.slope * part) for part in (slopes, offsets)])


def _max_pool(walk: _Walk, op: MaxPool, x: Tensor) -> Tensor:
    """The winner of each window, and where another one overtakes it."""
    slopes, offsets = _tidied(x)
    p, q = windows(slopes, op, 0.0), windows(offsets, op, -math.inf)
    outside = q == -math.inf
    winner = _winner(walk, p.detach(), q.detach(), outside)
    best_p, best_q = p.gather(-1, winner), q.gather(-1, winner)
    crossings = ((best_q - q) / (p - best_p)).detach()
    overtakes = (p > best_p) if walk.side == "right" and not bool(walk.at.isinf().any()) else (p < best_p)
    # to the right only steeper values overtake, to the left only flatter ones; of the outermost piece all were passed
    walk.crossed(torch.where(outside | ~overtakes, torch.nan, crossings))
    return torch.cat([best_p.squeeze(-1), best_q.squeeze(-1)])


def _winner(walk: _Walk, p: Tensor, q: Tensor, outside: Tensor) -> Tensor:
    """Places of the largest value just beside `at`: among equals there the steepest (to the left the flattest)."""
    at = walk.rows(p)
    far = torch.isinf(at)
    size = torch.where(far, p.abs(), p.abs() * at.nan_to_num(posinf=0.0).abs() + q.abs())
    value = torch.where(far, p, p * torch.where(far, 0, at) + q).masked_fill(outside, -math.inf)
    slack = SAME * size.masked_fill(outside, 0).amax(-1, keepdim=True)
    tied = value >= value.amax(-1, keepdim=True) - slack
    second = torch.where(far, q, p if walk.side == "right" else -p)
    return second.masked_fill(~tied | outside, -math.inf).argmax(-1, keepdim=True)


RULES: Rules = {
    AvgPool: _plain,
    Concat: _plain,
    Conv: _weights,
    Flip: _plain,
    Linear: _weights,
    MaxPool: _max_pool,
    Mean: _plain,
    Pad: _pad,
    Permute: _plain,
    Relu: _relu,
    Reshape: _plain,
    Scale: _scale,
    Slice: _plain,
    Sum: _plain,
}
