"""Interval bound propagation: for every operation what its values cannot leave, from what its arguments cannot leave.

Also how far a value that was computed in floating point is taken to be from the exact one of the same arguments: for a
sum of k products by at most 4 sqrt(k) u of the sum of their sizes, u half of the type's epsilon. That is the rule of
Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 2019, which takes
roundings as independent of each other; the k u of the worst case costs provable samples. It is taken where equal
numbers are summed: in means, and over weights of one size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Tensor

from caveat.graph import (
    CURVES,
    EVALUATE,
    AvgPool,
    Concat,
    Conv,
    Curve,
    Flip,
    Linear,
    MaxPool,
    Mean,
    Operation,
    Pad,
    Permute,
    Relu,
    Reshape,
    Rules,
    Scale,
    Slice,
    Sum,
)

__all__ = ["DOUBLE", "INTERVAL", "Carried", "Interval", "magnitude", "of_count", "propagated", "roundoff", "unit_in"]

Interval = tuple[Tensor, Tensor]
"""Lower and upper bounds `(n, ...)`."""
CAUTION = 4.0
ALIKE = 2.0**-6
SMALLEST = torch.finfo(torch.float32).tiny
"""What coefficients in float32 may lose below."""
DOUBLE = 2.0**-53
LOWEST = {"gelu": (-0.7517915972, -0.1699712076), "gelu_tanh": (-0.7524614220, -0.1700407506),
          "silu": (-1.2784645428, -0.2784645429)}  # fmt: skip
"""Where curves that fall before they rise have their minimum, and a number just below it."""


def _each(op: Operation, *values: Interval) -> Interval:
    """Operations that never fall in any argument."""
    low, high = zip(*values, strict=True)
    return EVALUATE[type(op)](op, *low), EVALUATE[type(op)](op, *high)


def _weights(op: Linear | Conv, x: Interval) -> Interval:
    """Centre and radius: W c + b and |W| r."""
    middle = EVALUATE[type(op)](op, (x[0] + x[1]) / 2)
    half = EVALUATE[type(op)](replace(op, weight=op.weight.abs(), bias=None), (x[1] - x[0]) / 2)
    return middle - half, middle + half


def _scale(op: Scale, x: Interval) -> Interval:
    a, b = (op.factor * end + op.shift for end in x)
    return torch.minimum(a, b), torch.maximum(a, b)


def _sum(op: Sum, *values: Interval) -> Interval:
    ends = [(x if factor >= 0 else x[::-1]) for factor, x in zip(op.factors, values, strict=True)]
    low, high = zip(*ends, strict=True)
    return EVALUATE[Sum](op, *low), EVALUATE[Sum](op, *high)


def _relu(op: Relu, x: Interval) -> Interval:
    """The slope may be negative: then the minimum is at 0."""
    a, b = EVALUATE[Relu](op, x[0]), EVALUATE[Relu](op, x[1])
    across = (x[0] < 0) & (x[1] > 0)
    least = torch.minimum(a, b)
    return torch.where(across, least.clamp_max(0), least), torch.maximum(a, b)


def _curve(op: Curve, x: Interval) -> Interval:
    a, b = CURVES[op.name](x[0]), CURVES[op.name](x[1])
    least = torch.minimum(a, b)
    if op.name in LOWEST:
        place, value = LOWEST[op.name]
        least = torch.where((x[0] <= place) & (x[1] >= place), value, least)
    return least, torch.maximum(a, b)


INTERVAL: Rules = {
    AvgPool: _each,
    Concat: _each,
    Conv: _weights,
    Curve: _curve,
    Flip: _each,
    Linear: _weights,
    MaxPool: _each,
    Mean: _each,
    Pad: _each,
    Permute: _each,
    Relu: _relu,
    Reshape: _each,
    Scale: _scale,
    Slice: _each,
    Sum: _sum,
}


def unit_in(dtype: torch.dtype) -> float:
    """Half of the epsilon: by how much of its size a number is off when it is rounded."""
    return torch.finfo(dtype).eps / 2


@dataclass(frozen=True)
class Carried:
    """Coefficients of a result that are carried back in another type than float64."""

    unit: float
    """Half of its epsilon."""
    count: int | Tensor
    """How many of them are not 0, one number or `(n, 1, ...)`."""


EXACT = Carried(0.0, 0)


@overload
def of_count(count: int, unit: float) -> float: ...
@overload
def of_count(count: int | Tensor, unit: float, carried: Carried) -> float | Tensor: ...
def of_count(count: int | Tensor, unit: float, carried: Carried = EXACT) -> float | Tensor:
    """By how much of the sum of their sizes a sum of so many products can be off, and one of its coefficients besides.

    What is rounded in the two is independent too. A product with 0 is exact, and need not be counted.
    """
    return CAUTION * ((count + 2) * unit**2 + (carried.count + 2) * carried.unit**2) ** 0.5


def at_worst(count: int | Tensor, unit: float, carried: Carried = EXACT) -> float | Tensor:
    """The same where roundings may be alike: k u, which always holds, with a hundredth more for its squares."""
    return 1.01 * ((count + 2) * unit + (carried.count + 2) * carried.unit)


@dataclass(frozen=True)
class Limits:
    """Of a floating point type: no value is larger, and what is smaller may be taken for 0."""

    largest: float
    least: float


def limits(unit: float) -> Limits:
    """By half of the type's epsilon. Small numbers of half precision are kept, those of other types may be flushed."""
    for dtype in (torch.float64, torch.float32, torch.float16):
        if unit <= unit_in(dtype):
            kind = torch.finfo(dtype)
            return Limits(kind.max, kind.tiny * (kind.eps if dtype == torch.float16 else 1))
    return Limits(torch.finfo(torch.bfloat16).max, torch.finfo(torch.bfloat16).tiny)


@dataclass(frozen=True)
class Due:
    """What a value can be off by: a share of the sum of the sizes of all that it is summed of, and small numbers."""

    share: float | Tensor
    size: Tensor
    small: float | Tensor
    """So many times the least number of the type."""


def _alike(weight: Tensor) -> Tensor:
    """Which outputs sum over weights of nearly one size: then roundings are alike, where the inputs are too."""
    size = weight.flatten(1).abs()
    most, least = size.amax(1), torch.where(size > 0, size, torch.inf).amin(1)
    return most - least <= most * ALIKE


def _of_weights(op: Linear | Conv, unit: float, carried: Carried, x: Tensor) -> Due:
    bias = None if op.bias is None else op.bias.abs()
    size = EVALUATE[type(op)](replace(op, weight=op.weight.abs(), bias=bias), x)
    inputs, outputs = op.weight[0].numel(), len(op.weight)  # the second: where coefficients are carried back
    products = EVALUATE[type(op)](replace(op, weight=(op.weight != 0).to(x.dtype), bias=None), (x > 0).to(x.dtype))
    over = [1] * (op.weight.ndim - 2)  # the axes of a convolution
    alike = _alike(op.weight).reshape(-1, *over)
    share = torch.where(alike, at_worst(products, unit, carried), of_count(products, unit, carried))
    all_inputs = x.flatten(1).sum(1).reshape(-1, *[1] * (size.ndim - 1))
    small = inputs + 2 + all_inputs + op.weight.abs().flatten(1).sum(1).reshape(-1, *over)
    return Due(share + 4 * (inputs + outputs) * DOUBLE, size, small)


def _of_mean(op: Mean | AvgPool, unit: float, carried: Carried, x: Tensor) -> Due:
    """What is pooled may be all the same: of a flat picture all roundings are alike."""
    over = (x.shape[axis] for axis in op.axes) if isinstance(op, Mean) else op.kernel
    count = math.prod(over)  # at most so many windows hold a value, and give it a coefficient
    share = at_worst(count, unit, replace(carried, count=count))
    return Due(share + 4 * count * DOUBLE, EVALUATE[type(op)](op, x), count + 2)


def _of_scale(op: Scale, unit: float, carried: Carried, x: Tensor) -> Due:
    """Also of a batch normalisation that is computed in several steps."""
    factor, shift = (value.abs() if isinstance(value, Tensor) else abs(value) for value in (op.factor, op.shift))
    return Due(6 * (unit + 4 * DOUBLE) + of_count(0, 0.0, carried), factor * x + shift, 4 * (1 + x) * (1 + factor))


def _of_sum(op: Sum, unit: float, carried: Carried, *x: Tensor) -> Due:
    factors = tuple(abs(factor) for factor in op.factors)
    share = (len(x) + 1) * (unit + 4 * DOUBLE) + of_count(0, 0.0, carried)
    size = EVALUATE[Sum](replace(op, factors=factors), *x)
    return Due(share, size, 2 * len(x) * (1 + sum(factors) + sum(x)))


def _of_relu(op: Relu, unit: float, carried: Carried, x: Tensor) -> Due | None:
    del carried  # the lines' offsets pay for it
    slope = op.slope.abs() if isinstance(op.slope, Tensor) else abs(op.slope)
    return None if not isinstance(slope, Tensor) and not slope else Due(2 * unit, slope * x, 2 + slope + x)


def _of_curve(op: Curve, unit: float, carried: Carried, x: Tensor) -> Due:
    del op, carried
    return Due(16 * (unit + 4 * DOUBLE), 1 + x, 0.0)


ROUNDOFF: dict[type, Callable[..., Due | None]] = {
    AvgPool: _of_mean,
    Conv: _of_weights,
    Curve: _of_curve,
    Linear: _of_weights,
    Mean: _of_mean,
    Relu: _of_relu,
    Scale: _of_scale,
    Sum: _of_sum,
}
"""The operations that round."""


def roundoff(op: Operation, unit: float, *values: Interval, carried: Carried = EXACT) -> Tensor | None:
    """How far the computed value can be from the exact one of the same arguments; None where nothing is rounded.

    `unit` is half of the epsilon of the type in which the network is computed; with what is due for coefficients too.
    Infinite where sums may leave the type: then it can be anything, or no number.
    """
    rule = ROUNDOFF.get(type(op))
    due = None if rule is None else rule(op, unit, carried, *(magnitude(value) for value in values))
    if due is None:
        return None
    kind = limits(unit)
    small = due.small * (kind.least + (SMALLEST if carried.unit else 0.0))
    return torch.where(due.size <= kind.largest, due.share * due.size + small, torch.inf)


def magnitude(x: Interval) -> Tensor:
    """The largest size of the values."""
    return torch.maximum(x[0].abs(), x[1].abs())


def propagated(op: Operation, rounding: Tensor | None, *values: Interval) -> Interval:
    """What the operation's computed value cannot leave."""
    found: Any = INTERVAL[type(op)](op, *values)
    low, high = found
    return (low, high) if rounding is None else (low - rounding, high + rounding)
