"""A network as a list of elementary operations, and how to walk it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from caveat.errors import ModelError
from caveat.graph.operations import (
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
    Scale,
    Slice,
    Sum,
    moved,
)

__all__ = ["CURVES", "EVALUATE", "Graph", "Node", "Rules", "windows"]

T = TypeVar("T")
Rules = Mapping[type, Callable[..., Any]]
"""For each kind of operation a function `(operation, *arguments) -> value`."""


@dataclass(frozen=True)
class Node:
    """One operation, what it is applied to, and what it gives."""

    operation: Operation
    arguments: tuple[int, ...]
    """Places in the list of values: 0 is the network's input, k the result of node k - 1."""
    shape: tuple[int, ...]
    """Of a sample's value, without the batch."""
    where: str
    """The layer it comes from."""


@dataclass(frozen=True)
class Graph:
    """A snapshot: training the network further does not change it."""

    nodes: tuple[Node, ...]
    output: int
    """Place of the logits in the list of values."""
    input_shape: tuple[int, ...]

    def walk(self, rules: Rules, value: T) -> T:
        """Apply the rules in order, from the value at the input to that of the logits.

        What is computed may be anything: tensors, bounds, pairs; it is forgotten after its last use.

        Raises
        ------
        ModelError
            If there is no rule for an operation of this network.
        """
        last = {place: k for k, node in enumerate(self.nodes) for place in node.arguments} | {self.output: -1}
        values: dict[int, T] = {0: value}
        for k, node in enumerate(self.nodes):
            rule = rules.get(type(node.operation))
            if rule is None:
                kind = type(node.operation).__name__
                name = getattr(node.operation, "name", kind)
                raise ModelError(
                    f"model: {name} (in {node.where}) is not piecewise affine, as a network for rays must be"
                    if isinstance(node.operation, Curve)
                    else f"model: no rule for {kind} (in {node.where})"
                )
            values[k + 1] = rule(node.operation, *(values[place] for place in node.arguments))
            for place in set(node.arguments):
                if last[place] == k:
                    del values[place]
        return values[self.output]

    def __call__(self, inputs: Tensor) -> Tensor:
        """The logits, as the model gives them."""
        return self.walk(EVALUATE, inputs)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> "Graph":
        """The same with its tensors in another type or elsewhere."""
        device = torch.device(device)
        nodes = tuple(replace(node, operation=moved(node.operation, dtype, device)) for node in self.nodes)
        return replace(self, nodes=nodes)


CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
AVG_POOLS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def linear(op: Linear, x: Tensor) -> Tensor:
    """Linear map of the last axis."""
    return functional.linear(x, op.weight, op.bias)


def conv(op: Conv, x: Tensor) -> Tensor:
    """Convolution."""
    apply: Callable[..., Tensor] = CONVOLUTIONS[op.weight.ndim - 3]
    return apply(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)


def relu(op: Relu, x: Tensor) -> Tensor:
    """ReLU and its leaky kin."""
    return torch.where(x > 0, x, op.slope * x)


def max_pool(op: MaxPool, x: Tensor) -> Tensor:
    """Maxima of windows."""
    apply: Callable[..., Tensor] = MAX_POOLS[len(op.kernel) - 1]
    return apply(x, op.kernel, op.stride, op.padding, op.dilation, op.ceil)


def windows(x: Tensor, op: MaxPool, filling: float) -> Tensor:
    """All windows of a pooling layer, as a last axis."""
    widths: list[int] = []
    starts: list[int] = []
    for size, kernel, stride, padding, dilation in zip(
        x.shape[2:], op.kernel, op.stride, op.padding, op.dilation, strict=True
    ):
        reach = dilation * (kernel - 1) + 1
        room = size + 2 * padding - reach
        count = (-(-room // stride) if op.ceil else room // stride) + 1
        if op.ceil and (count - 1) * stride >= size + padding:
            count -= 1  # the last window must begin inside
        starts.append(count)
        widths = [padding, max(0, (count - 1) * stride + reach - size - padding), *widths]
    x = functional.pad(x, widths, value=filling)
    for axis, (kernel, stride, dilation, count) in enumerate(
        zip(op.kernel, op.stride, op.dilation, starts, strict=True), start=2
    ):
        x = x.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        x = x.narrow(axis, 0, count)
    return x.flatten(2 + len(op.kernel))


def avg_pool(op: AvgPool, x: Tensor) -> Tensor:
    """Means of windows."""
    apply: Callable[..., Tensor] = AVG_POOLS[len(op.kernel) - 1]
    if len(op.kernel) == 1:  # has no divisor of its own
        return apply(x, op.kernel, op.stride, op.padding, op.ceil, op.padded)
    return apply(x, op.kernel, op.stride, op.padding, op.ceil, op.padded, op.divisor)


def weighted(op: Sum, *terms: Tensor) -> Tensor:
    """Weighted sum."""
    total = op.factors[0] * terms[0]
    for factor, term in zip(op.factors[1:], terms[1:], strict=True):
        total = total + factor * term
    return total


def part(op: Slice, x: Tensor) -> Tensor:
    """Every step-th value."""
    return x[(slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)]


CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
}

EVALUATE: Rules = {
    AvgPool: avg_pool,
    Concat: lambda op, *terms: torch.cat(terms, op.axis),
    Conv: conv,
    Curve: lambda op, x: CURVES[op.name](x),
    Flip: lambda op, x: x.flip(op.axes),
    Linear: linear,
    MaxPool: max_pool,
    Mean: lambda op, x: x.mean(op.axes, keepdim=op.keep),
    Pad: lambda op, x: functional.pad(x, op.widths, value=op.value),
    Permute: lambda op, x: x.permute(op.order),
    Relu: relu,
    Reshape: lambda op, x: x.reshape(len(x), *op.shape),
    Scale: lambda op, x: op.factor * x + op.shift,
    Slice: part,
    Sum: weighted,
}
