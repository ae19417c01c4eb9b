"""Linear bounds carried back through the layers, with gradients: what `bounds` does with a trained network."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from caveat.bounds.adjoint import ADJOINT
from caveat.bounds.region import Rows
from caveat.bounds.relaxations import RELAXATIONS
from caveat.errors import ModelError
from caveat.graph import AvgPool, Conv, Curve, Linear, MaxPool, Operation, Pad, Relu, Reshape, Scale
from caveat.objectives._intervals import Boxed, normalising

__all__ = ["worst_by_lines"]

UNCHANGED = (nn.Identity, nn.Dropout)  # the boxes went through: a dropout is off
CURVES = {nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}


def worst_by_lines(layers: Sequence[nn.Module], head: nn.Linear, values: Sequence[Boxed], labels: Tensor) -> Tensor:
    """Logits relative to the label's, as bad as one pass back to the inputs allows: `(n, c)`, 0 at the label.

    `values` are the boxes before every layer, from the inputs on, and before the head; they say where ReLUs lie.

    Raises
    ------
    ModelError
        If a layer has no rule; the message names it.
    """
    rows = Rows.each(len(labels), head.out_features, device=labels.device)
    coefficients = (head.weight[labels].unsqueeze(1) - head.weight).flatten(0, 1)
    bias: Any = head.bias  # None without one
    constant = (
        coefficients.new_zeros(len(rows.sample)) if bias is None else (bias[labels].unsqueeze(1) - bias).flatten()
    )
    for layer, before in zip(reversed(layers), reversed(values[:-1]), strict=True):
        if isinstance(layer, UNCHANGED):
            continue
        operation, shape = _operation(layer, before), tuple(before.centre.shape[1:])
        if type(operation) in RELAXATIONS:
            relax, _ = RELAXATIONS[type(operation)]
            coefficients, more = relax(operation, before.ends).back(coefficients, rows, shape)
        else:
            (coefficients,), more = ADJOINT[type(operation)](operation, coefficients, [shape])
        constant = constant + more
    box = values[0]
    least = constant + rows.dot(coefficients, box.centre) - rows.dot(coefficients.abs(), box.half)
    return -least.view(len(labels), head.out_features)


def _operation(layer: nn.Module, before: Boxed) -> Operation:
    """A layer as the tables of `bounds` know it, its weights those that are trained."""
    match layer:
        case nn.Linear():
            return Linear(layer.weight, layer.bias)
        case nn.Conv2d(padding=tuple(padding)):
            return Conv(layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return Scale(*normalising(layer, before.clean))
        case nn.ReLU():
            return Relu(0.0)
        case nn.LeakyReLU():
            return Relu(layer.negative_slope)
        case nn.Sigmoid() | nn.Tanh():
            return Curve(CURVES[type(layer)])
        case nn.MaxPool2d():
            kernel, stride, padding, dilation = (
                _pair(value) for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
            )
            return MaxPool(kernel, stride, padding, dilation, layer.ceil_mode)
        case nn.AvgPool2d():
            kernel, stride, padding = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
            ceil, padded, divisor = layer.ceil_mode, layer.count_include_pad, layer.divisor_override
            return AvgPool(kernel, stride, padding, ceil, padded, divisor)
        case nn.Flatten():
            shape = layer(before.centre).shape[1:]
            return Reshape(tuple(shape))
        case nn.ZeroPad2d():
            return Pad(layer.padding, 0.0)
        case _:
            raise ModelError(
                "model: crown_ibp takes linear maps, convolutions (their padding in numbers), average and maximum "
                "pooling, batch normalisation, ReLU, leaky ReLU, sigmoid and tanh, one after the other; there is no "
                f"rule for {type(layer).__name__}; ibp takes more"
            )


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value
