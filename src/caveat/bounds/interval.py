"""Interval bound propagation: for every operation what its values cannot leave, from what its arguments cannot leave.

Also how far a value that was computed in floating point is taken to be from the exact one of the same arguments: for a
sum of k products by at most 4 sqrt(k) u of the sum of their sizes, u half of the type's epsilon. That is the rule of
Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 2019, which takes
roundings as independent of each other; the k u of the worst case is never approached, and costs provable samples.
"""

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


def _of_weights(op: Linear | Conv, unit: float, carried: Carried, x: Tensor) -> Tensor:
    bias = None if op.bias is None else op.bias.abs()
    size = EVALUATE[type(op)](replace(op, weight=op.weight.abs(), bias=bias), x)
    inputs, outputs = op.weight[0].numel(), len(op.weight)  # the second: where coefficients are carried back
    products = EVALUATE[type(op)](replace(op, weight=(op.weight != 0).to(x.dtype), bias=None), (x > 0).to(x.dtype))
    return (of_count(products, unit, carried) + 4 * (inputs + outputs) * DOUBLE) * size


def _of_mean(op: Mean | AvgPool, unit: float, carried: Carried, x: Tensor) -> Tensor:
    count = x[0].numel() if isinstance(op, Mean) else torch.Size(op.kernel).numel()
    size = EVALUATE[type(op)](op, x)
    return (of_count(count, unit, carried) + 4 * count * DOUBLE) * size


def _of_scale(op: Scale, unit: float, carried: Carried, x: Tensor) -> Tensor:
    """Also of a batch normalisation that is computed in several steps."""
    factor, shift = (value.abs() if isinstance(value, Tensor) else abs(value) for value in (op.factor, op.shift))
    size = factor * x + shift
    return (6 * (unit + 4 * DOUBLE) + of_count(0, 0.0, carried)) * size


def _of_sum(op: Sum, unit: float, carried: Carried, *x: Tensor) -> Tensor:
    size = EVALUATE[Sum](replace(op, factors=tuple(abs(factor) for factor in op.factors)), *x)
    return ((len(x) + 1) * (unit + 4 * DOUBLE) + of_count(0, 0.0, carried)) * size


def _of_relu(op: Relu, unit: float, carried: Carried, x: Tensor) -> Tensor | None:
    del carried  # the lines' offsets pay for it
    slope = op.slope.abs() if isinstance(op.slope, Tensor) else abs(op.slope)
    return None if not isinstance(slope, Tensor) and not slope else 2 * unit * slope * x


def _of_curve(op: Curve, unit: float, carried: Carried, x: Tensor) -> Tensor:
    del op, carried
    return 16 * (unit + 4 * DOUBLE) * (1 + x)


ROUNDOFF: dict[type, Callable[..., Tensor | None]] = {
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
    """
    rule = ROUNDOFF.get(type(op))
    return None if rule is None else rule(op, unit, carried, *(magnitude(value) for value in values))


def magnitude(x: Interval) -> Tensor:
    """The largest size of the values."""
    return torch.maximum(x[0].abs(), x[1].abs())


def propagated(op: Operation, rounding: Tensor | None, *values: Interval) -> Interval:
    """What the operation's computed value cannot leave."""
    found: Any = INTERVAL[type(op)](op, *values)
    low, high = found
    return (low, high) if rounding is None else (low - rounding, high + rounding)
