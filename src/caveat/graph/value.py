"""What lowering passes around: values that depend on the input, and what is asked of constants."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from caveat.graph.graph import Node
from caveat.graph.operations import Operation

__all__ = ["Adds", "Given", "Lower", "Shapes", "Unsuited", "Value", "fitted", "need_constant", "numbers", "sample_axes"]

Given = dict[str, Any]
"""Arguments by the names of PyTorch's schema: values of the network, constants, numbers."""
Shapes = list[tuple[int, ...]]
"""Of the results, without the batch."""


@dataclass(frozen=True)
class Value:
    """Something that depends on the input: its place in the list, and its shape without the batch."""

    place: int
    shape: tuple[int, ...]


class Unsuited(Exception):  # noqa: N818 -- it becomes a ModelError, which names operation and layer
    """The operation is known, but not in this form."""


@dataclass
class Adds:
    """The list as it grows."""

    batch: int
    nodes: list[Node] = field(default_factory=list)

    def add(self, operation: Operation, arguments: tuple[Value, ...], shape: tuple[int, ...], where: str) -> Value:
        """Append an operation and return its result."""
        self.nodes.append(Node(operation, tuple(value.place for value in arguments), shape, where))
        return Value(len(self.nodes), shape)


Lower = Callable[[Adds, Given, Shapes, str], Any]
"""From arguments, shapes of the results and the layer's name to the result."""


def need_constant(*values: Any) -> None:
    """Refuse weights that depend on the input."""
    if any(isinstance(value, Value) for value in values):
        raise Unsuited("its weights depend on the input")


def numbers(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def sample_axes(x: Value, axes: Any) -> tuple[int, ...]:
    """Axes counted from the front, none of them the batch; all of a sample if none is given."""
    count = len(x.shape) + 1
    found = tuple(axis % count for axis in ([axes] if isinstance(axes, int) else axes or range(count)))
    if 0 in found:
        raise Unsuited("it runs over the batch")
    return found


def fitted(constant: Any, x: Value, shape: tuple[int, ...], batch: int) -> Any:
    """A constant as it meets one sample: the same for all of them."""
    if x.shape != shape:
        raise Unsuited(f"a constant makes a value of shape {x.shape} one of {shape}")
    if not isinstance(constant, Tensor):
        return float(constant)
    if constant.ndim == len(shape) + 1 and len(constant) == batch:
        if not torch.equal(constant[0], constant[1]):
            raise Unsuited("a constant differs from sample to sample")
        return constant[:1]
    return constant
