"""The elementary operations a network is made of, each a frozen dataclass of its constants: piecewise affine ones, and
curves, which bounds relax and rays refuse.

Values are `(n, ...)`; axes are counted with the batch as axis 0, which no operation touches.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

__all__ = [
    "AvgPool",
    "Concat",
    "Conv",
    "Curve",
    "Flip",
    "Linear",
    "MaxPool",
    "Mean",
    "Operation",
    "Pad",
    "Permute",
    "Relu",
    "Reshape",
    "Scale",
    "Slice",
    "Sum",
    "moved",
]


@dataclass(frozen=True)
class Linear:
    """x weight^T + bias, along the last axis."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Conv:
    """A convolution over one, two or three spatial axes, zeros outside."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Relu:
    """x where x > 0, else slope x."""

    slope: float | Tensor
    """0 for ReLU; a tensor that broadcasts for PReLU."""


@dataclass(frozen=True)
class Curve:
    """A smooth function of every value by itself; not piecewise affine."""

    name: str
    """A key of `graph.CURVES`."""


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window; what lies outside does not count."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil: bool
    """Whether a last window that is not whole counts."""


@dataclass(frozen=True)
class AvgPool:
    """The mean of each window."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil: bool
    padded: bool
    """Whether zeros outside are counted in the mean."""
    divisor: int | None


@dataclass(frozen=True)
class Scale:
    """factor x + shift, value by value: batch normalisation in eval mode, arithmetic with constants."""

    factor: float | Tensor
    shift: float | Tensor


@dataclass(frozen=True)
class Sum:
    """A weighted sum of values of one shape, or of shapes that broadcast: residual connections."""

    factors: tuple[float, ...]


@dataclass(frozen=True)
class Mean:
    """The mean over axes."""

    axes: tuple[int, ...]
    keep: bool


@dataclass(frozen=True)
class Reshape:
    """The values of a sample in their order, in another shape."""

    shape: tuple[int, ...]
    """Without the batch."""


@dataclass(frozen=True)
class Permute:
    """Axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class Pad:
    """A constant around the value."""

    widths: tuple[int, ...]
    """From the last axis on, two each, as torch counts them."""
    value: float


@dataclass(frozen=True)
class Concat:
    """Values beside each other."""

    axis: int


@dataclass(frozen=True)
class Slice:
    """Every step-th value along an axis, from start to stop."""

    axis: int
    start: int
    stop: int
    step: int


@dataclass(frozen=True)
class Flip:
    """The values along axes in reverse."""

    axes: tuple[int, ...]


Operation = (
    AvgPool
    | Concat
    | Conv
    | Curve
    | Flip
    | Linear
    | MaxPool
    | Mean
    | Pad
    | Permute
    | Relu
    | Reshape
    | Scale
    | Slice
    | Sum
)
O = TypeVar("O", bound=Operation)  # noqa: E741


def moved(operation: O, dtype: torch.dtype, device: torch.device) -> O:
    """The same with its tensors in another type or elsewhere."""
    tensors = {
        field.name: value.to(device=device, dtype=dtype)
        for field in fields(operation)
        if isinstance(value := getattr(operation, field.name), Tensor)
    }
    return replace(operation, **tensors)
