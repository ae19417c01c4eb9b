"""Coefficients carried back through the linear operations: from those of a result to those of its arguments.

Coefficients are rows `(r, ...)` over the values of one sample; every rule gives those of each argument, and what the
operation's constants add to the row's own constant.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from caveat.graph import (
    EVALUATE,
    AvgPool,
    Concat,
    Conv,
    Flip,
    Linear,
    Mean,
    Pad,
    Permute,
    Reshape,
    Scale,
    Slice,
    Sum,
)

__all__ = ["ADJOINT", "Back"]

Back = tuple[tuple[Tensor, ...], Tensor | float]
Shapes = list[tuple[int, ...]]
FEW = 4
"""Channels of an image up to which oneDNN's transposed convolution in float32 is slower than a product and a fold."""
TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)


def _linear(op: Linear, rows: Tensor, shapes: Shapes) -> Back:
    del shapes
    constant = 0.0 if op.bias is None else (rows @ op.bias).flatten(1).sum(1) if rows.ndim > 2 else rows @ op.bias
    weight = op.weight
    if rows.ndim == 2 and not rows.requires_grad:  # of what ReLUs switch off nothing is left: half of it and more
        used = rows.any(0)
        if 4 * int(used.sum()) < 3 * len(used):
            rows, weight = rows[:, used], weight[used]
    return (rows @ weight,), constant


def _conv(op: Conv, rows: Tensor, shapes: Shapes) -> Back:
    axes = op.weight.ndim - 2
    constant = 0.0 if op.bias is None else rows.flatten(2).sum(2) @ op.bias
    if axes == 2 and op.groups == 1 and op.weight.shape[1] <= FEW and rows.dtype == torch.float32:
        columns = op.weight.flatten(1).T @ rows.flatten(2)
        size, kernel = torch.Size(shapes[0][1:]), op.weight.shape[2:]
        return (functional.fold(columns, size, kernel, op.dilation, op.padding, op.stride),), constant
    sizes = zip(shapes[0][1:], rows.shape[2:], op.stride, op.padding, op.dilation, op.weight.shape[2:], strict=True)
    rest = [size - ((out - 1) * s - 2 * p + d * (k - 1) + 1) for size, out, s, p, d, k in sizes]
    apply: Callable[..., Tensor] = TRANSPOSED[axes - 1]
    back = apply(rows, op.weight, None, op.stride, op.padding, tuple(rest), op.groups, op.dilation)
    return (back,), constant


def _scale(op: Scale, rows: Tensor, shapes: Shapes) -> Back:
    del shapes
    constant = 0.0 if not isinstance(op.shift, Tensor) and not op.shift else (rows * op.shift).flatten(1).sum(1)
    return (rows * op.factor,), constant


def _sum(op: Sum, rows: Tensor, shapes: Shapes) -> Back:
    return tuple(
        (factor * rows).sum_to_size(len(rows), *shape) for factor, shape in zip(op.factors, shapes, strict=True)
    ), 0.0


def _mean(op: Mean, rows: Tensor, shapes: Shapes) -> Back:
    if not op.keep:
        for axis in sorted(op.axes):
            rows = rows.unsqueeze(axis)
    count = math.prod(shapes[0][axis - 1] for axis in op.axes)
    return ((rows / count).expand(len(rows), *shapes[0]),), 0.0


def _avg_pool(op: AvgPool, rows: Tensor, shapes: Shapes) -> Back:
    with torch.enable_grad():
        x = rows.new_zeros(len(rows), *shapes[0]).requires_grad_()
        pooled = EVALUATE[AvgPool](op, x)
        return torch.autograd.grad(pooled, x, rows, create_graph=rows.requires_grad), 0.0


def _pad(op: Pad, rows: Tensor, shapes: Shapes) -> Back:
    del shapes
    inner = functional.pad(rows, tuple(-width for width in op.widths))
    outside = op.value and op.value * (rows.flatten(1).sum(1) - inner.flatten(1).sum(1))
    return (inner,), outside


def _concat(op: Concat, rows: Tensor, shapes: Shapes) -> Back:
    return tuple(rows.split([shape[op.axis - 1] for shape in shapes], dim=op.axis)), 0.0


def _slice(op: Slice, rows: Tensor, shapes: Shapes) -> Back:
    back = rows.new_zeros(len(rows), *shapes[0])
    back[(slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)] = rows
    return (back,), 0.0


def _permute(op: Permute, rows: Tensor, shapes: Shapes) -> Back:
    del shapes
    return (rows.permute([op.order.index(axis) for axis in range(rows.ndim)]),), 0.0


ADJOINT: dict[type, Callable[[Any, Tensor, Shapes], Back]] = {
    AvgPool: _avg_pool,
    Concat: _concat,
    Conv: _conv,
    Flip: lambda op, rows, shapes: ((rows.flip(op.axes),), 0.0),
    Linear: _linear,
    Mean: _mean,
    Pad: _pad,
    Permute: _permute,
    Reshape: lambda op, rows, shapes: ((rows.reshape(len(rows), *shapes[0]),), 0.0),
    Scale: _scale,
    Slice: _slice,
    Sum: _sum,
}
