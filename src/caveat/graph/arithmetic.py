"""How arithmetic with constants, sums, means and changes of shape are lowered."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caveat.graph.operations import Concat, Flip, MaxPool, Mean, Pad, Permute, Reshape, Scale, Slice, Sum
from caveat.graph.value import Adds, Given, Lower, Shapes, Unsuited, Value, fitted, sample_axes

__all__ = [
    "cast", "concat", "cut", "flip", "largest", "like", "mean", "negative", "over", "pad", "permute", "pieces", "plus",
    "reshape", "select", "times", "total",
]  # fmt: skip


def mean(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Mean over axes of a sample."""
    x = given["self"]
    axes = sample_axes(x, given.get("dim"))
    return adds.add(Mean(axes, given.get("keepdim", False)), (x,), shapes[0], where)


def total(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Sum over axes of a sample."""
    count = math.prod(given["self"].shape[axis - 1] for axis in sample_axes(given["self"], given.get("dim")))
    return adds.add(Scale(float(count), 0.0), (mean(adds, given, shapes, where),), shapes[0], where)


def plus(sign: float, *, swapped: bool = False) -> Lower:
    """a + sign alpha b, of values and constants."""

    def lowered(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
        a, b = given["self"], given["other"]
        factors = (1.0, sign * float(given.get("alpha", 1)))
        if swapped:
            a, b = b, a
        if isinstance(a, Value) and isinstance(b, Value):
            return adds.add(Sum(factors), (a, b), shapes[0], where)
        x, factor, constant, other = (
            (a, factors[0], b, factors[1]) if isinstance(a, Value) else (b, factors[1], a, factors[0])
        )
        shift = fitted(constant, x, shapes[0], adds.batch)
        return adds.add(Scale(factor, other * shift), (x,), shapes[0], where)

    return lowered


def times(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """A value times a constant."""
    a, b = given["self"], given["other"]
    if isinstance(a, Value) and isinstance(b, Value):
        raise Unsuited("the product of two values that depend on the input is not piecewise affine")
    x, constant = (a, b) if isinstance(a, Value) else (b, a)
    return adds.add(Scale(fitted(constant, x, shapes[0], adds.batch), 0.0), (x,), shapes[0], where)


def over(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """A value over a constant."""
    x, constant = given["self"], given["other"]
    if not isinstance(x, Value) or isinstance(constant, Value):
        raise Unsuited("division by something that depends on the input is not piecewise affine")
    return adds.add(Scale(1 / fitted(constant, x, shapes[0], adds.batch), 0.0), (x,), shapes[0], where)


def negative(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Minus a value."""
    return adds.add(Scale(-1.0, 0.0), (given["self"],), shapes[0], where)


def like(value: float | None) -> Lower:
    """A constant of the shape of a value, the same for every sample."""

    def lowered(adds: Adds, given: Given, shapes: Shapes, where: str) -> Tensor:
        del adds, where
        return torch.full((1, *shapes[0]), float(given["fill_value"] if value is None else value))

    return lowered


def reshape(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Any of the ways to give a sample another shape, its values staying in their order."""
    return adds.add(Reshape(shapes[0]), (given["self"],), shapes[0], where)


def permute(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Axes in another order, the batch staying first."""
    x = given["self"]
    axes = len(x.shape) + 1
    order = list(range(axes))
    if "dim0" in given:
        i, j = given["dim0"] % axes, given["dim1"] % axes
        order[i], order[j] = order[j], order[i]
    else:
        order = [axis % axes for axis in given["dims"]]
    if order[0] != 0:
        raise Unsuited("the batch must stay the first axis")
    return adds.add(Permute(tuple(order)), (x,), shapes[0], where)


def pad(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """A constant around the value."""
    if given.get("mode", "constant") != "constant":
        raise Unsuited(f"padding by {given['mode']} is not in the list of operations")
    if len(given["pad"]) > 2 * len(given["self"].shape):
        raise Unsuited("the batch is padded")
    return adds.add(Pad(tuple(given["pad"]), float(given.get("value") or 0.0)), (given["self"],), shapes[0], where)


def concat(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Values beside each other, also constants that are the same for every sample: class tokens."""
    parts: Sequence[Any] = given["tensors"]
    axis = given["dim"] % (len(shapes[0]) + 1)
    if axis == 0:
        raise Unsuited("expected values beside each other within a sample")
    values = tuple(part for part in parts if isinstance(part, Value))
    if len(values) == len(parts):
        return adds.add(Concat(axis), values, shapes[0], where)
    shift, padded, start = torch.zeros(1, *shapes[0], dtype=torch.float64), list[Value](), 0
    for part in parts:
        length = part.shape[axis - 1] if isinstance(part, Value) else part.shape[axis]
        if isinstance(part, Value):
            widths = (0, 0) * (len(shapes[0]) - axis) + (start, shapes[0][axis - 1] - start - length)
            padded.append(adds.add(Pad(widths, 0.0), (part,), shapes[0], where))
        else:
            place = shift.narrow(axis, start, length)
            place.copy_(fitted(part, Value(0, tuple(place.shape[1:])), tuple(place.shape[1:]), adds.batch))
        start += length
    one = padded[0] if len(padded) == 1 else adds.add(Sum((1.0,) * len(padded)), tuple(padded), shapes[0], where)
    return adds.add(Scale(1.0, shift), (one,), shapes[0], where)


def flip(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Axes in reverse."""
    return adds.add(Flip(sample_axes(given["self"], given["dims"])), (given["self"],), shapes[0], where)


def largest(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Maxima over axes of a sample: a pooling of one window."""
    x = given["self"]
    axes = sample_axes(x, given.get("dim"))
    kept = [axis for axis in range(len(x.shape) + 1) if axis not in axes]
    rest = tuple(x.shape[axis - 1] for axis in kept[1:])
    count = math.prod(x.shape[axis - 1] for axis in axes)
    if (order := (*kept, *axes)) != tuple(range(len(order))):
        x = adds.add(Permute(order), (x,), tuple(x.shape[axis - 1] for axis in order[1:]), where)
    x = adds.add(Reshape((math.prod(rest), count)), (x,), (math.prod(rest), count), where)
    x = adds.add(MaxPool((count,), (count,), (0,), (1,), ceil=False), (x,), (math.prod(rest), 1), where)
    return adds.add(Reshape(shapes[0]), (x,), shapes[0], where)


def cast(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Another floating type of single precision at least: the list has one type throughout."""
    del adds, shapes, where
    to = given.get("dtype")
    if to is not None and (not to.is_floating_point or torch.finfo(to).eps > torch.finfo(torch.float32).eps):
        raise Unsuited(f"it rounds to {to}")
    return given["self"]


def cut(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """Every step-th value along an axis."""
    x = given["self"]
    axis = given["dim"] % (len(x.shape) + 1)
    if axis == 0:
        if given["start"] in (None, 0) and (given["end"] is None or given["end"] >= adds.batch) and given["step"] == 1:
            return x
        raise Unsuited("the batch is cut")
    start, stop, step = slice(given["start"], given["end"], given["step"]).indices(x.shape[axis - 1])
    return adds.add(Slice(axis, start, stop, step), (x,), shapes[0], where)


def select(adds: Adds, given: Given, shapes: Shapes, where: str) -> Value:
    """One value along an axis."""
    x = given["self"]
    axis = given["dim"] % (len(x.shape) + 1)
    if axis == 0:
        raise Unsuited("the batch is cut")
    index = given["index"] % x.shape[axis - 1]
    shape = (*x.shape[: axis - 1], 1, *x.shape[axis:])
    one = adds.add(Slice(axis, index, index + 1, 1), (x,), shape, where)
    return adds.add(Reshape(shapes[0]), (one,), shapes[0], where)


def pieces(adds: Adds, given: Given, shapes: Shapes, where: str) -> tuple[Value, ...]:
    """Cut along an axis into parts."""
    x = given["self"]
    axis = given["dim"] % (len(x.shape) + 1)
    if axis == 0:
        raise Unsuited("the batch is cut")
    found, start = list[Value](), 0
    for shape in shapes:
        stop = start + shape[axis - 1]
        found.append(adds.add(Slice(axis, start, stop, 1), (x,), shape, where))
        start = stop
    return tuple(found)
