"""A batch, and what a box around it becomes, layer by layer with gradients: for certified training."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from caveat.attacks import Ball
from caveat.errors import ModelError
from caveat.evaluation import by_batch, drops

__all__ = ["Boxed", "boxed", "differences", "initialised", "layers_of", "normalising", "ramp", "worst_logits"]

MONOTONE = (
    nn.ReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.Hardtanh, nn.ReLU6, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.Flatten, nn.Identity, nn.ZeroPad2d,
)  # fmt: skip
"""Layers that never fall in any of their inputs: the ends of a box go through them as they are."""


@dataclass(frozen=True)
class Boxed:
    """Values of a batch, and the centres and half widths of boxes: around all of them, or of other samples alone."""

    clean: Tensor
    centre: Tensor
    half: Tensor

    @classmethod
    def around(cls, inputs: Tensor, radius: int | float) -> "Boxed":
        """The ball of the maximum norm within [0, 1].

        Raises
        ------
        DataError
            If inputs are outside of [0, 1], where half widths would be negative.
        """
        Ball(math.inf, radius, 0, 1).check(inputs)
        lower, upper = (inputs - radius).clamp_min(0), (inputs + radius).clamp_max(1)
        return cls(inputs, (lower + upper) / 2, (upper - lower) / 2)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Lower and upper end."""
        return self.centre - self.half, self.centre + self.half


def layers_of(model: nn.Module) -> tuple[list[nn.Module], nn.Linear]:
    """The layers before the last one in order, none within another, and the last: margins merge with it.

    Raises
    ------
    ModelError
        If the model is no `nn.Sequential` with a linear layer last.
    """
    layers = _flat(model) if isinstance(model, nn.Sequential) else []
    head = layers.pop() if layers else None
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"model: certified training takes an nn.Sequential that ends in a linear layer, got {type(model).__name__};"
            " write the network so, or train it by adversarial"
        )
    return layers, head


def initialised(model: nn.Module, generator: torch.Generator) -> int:
    """Draw all weights so that boxes keep their width from layer to layer; their number of layers.

    With usual weights a box grows by the root of a layer's inputs, so that at first nothing can be learnt of it.
    Formula: w ~ N(0, 2 pi / n^2), n the inputs of a unit, biases 0.

    Raises
    ------
    ModelError
        As `layers_of`.

    Source: Z. Shi et al., Fast certified robust training with short warmup, NeurIPS 2021 (arXiv 2103.17268), section
    4.1.
    """
    layers, head = layers_of(model)
    affine = [layer for layer in (*layers, head) if isinstance(layer, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer in affine:
            drawn = torch.randn(layer.weight.shape, generator=generator, device=generator.device)
            layer.weight.copy_(drawn * (math.sqrt(2 * math.pi) / layer.weight[0].numel()))
            if layer.bias is not None:
                layer.bias.zero_()
    return len(affine)


def ramp(epochs: int) -> int:
    """Epochs over which radius and weight rise: a fifth of all, but five at least, and at most half of all."""
    return min(epochs // 2, max(5, -(-epochs // 5)))


def _flat(model: nn.Sequential) -> list[nn.Module]:
    return [leaf for layer in model for leaf in (_flat(layer) if isinstance(layer, nn.Sequential) else [layer])]


def boxed(model: nn.Module, value: Boxed) -> Boxed:
    """Go through a network made of layers one after the other.

    Batch normalisation normalises the boxes as it does the clean batch, which alone moves its statistics.

    Raises
    ------
    ModelError
        If a layer has no rule; the message names it.
    """
    if isinstance(model, nn.Sequential):
        for layer in model:
            value = boxed(layer, value)
        return value
    if isinstance(model, nn.Linear | nn.Conv2d):
        return Boxed(model(value.clean), model(value.centre), _absolute(model, value.half))
    if isinstance(model, MONOTONE) or (isinstance(model, nn.LeakyReLU) and model.negative_slope >= 0):
        low, high = (model(end) for end in value.ends)
        return Boxed(model(value.clean), (low + high) / 2, (high - low) / 2)
    if isinstance(model, nn.BatchNorm1d | nn.BatchNorm2d):
        return _normalised(model, value)
    if isinstance(model, nn.Dropout) and not drops(model):
        return value
    raise ModelError(
        f"model: certified training takes layers one after the other (nn.Sequential) of linear maps, convolutions, "
        f"pooling, batch normalisation and activations that do not fall; there is no rule for {type(model).__name__}"
    )


def worst_logits(head: nn.Linear, value: Boxed, labels: Tensor) -> Tensor:
    """Logits relative to the label's that are as bad as the box before the last layer allows: `(n, c)`, 0 at the label.

    Formula: z_j = (w_j - w_y) c + b_j - b_y + |w_j - w_y| r, c and r the centre and half width before the layer.
    """
    weight = head.weight - head.weight[labels].unsqueeze(1)  # (n, c, d)
    bias: Any = head.bias  # None without one
    shift = 0.0 if bias is None else bias - bias[labels].unsqueeze(1)
    middle = torch.einsum("ncd,nd->nc", weight, value.centre)
    return middle + shift + torch.einsum("ncd,nd->nc", weight.abs(), value.half)


def differences(head: nn.Linear, value: Boxed) -> Tensor:
    """Upper bounds of the differences of any two logits over the boxes before the last layer: `(n, c, c)`, [k, l] of
    f_k - f_l.

    Formula: as `worst_logits`, for every class in place of the label.
    """
    middle = head(value.centre)
    apart = (head.weight.unsqueeze(1) - head.weight).abs().flatten(0, 1)  # (c c, d)
    reach = functional.linear(value.half, apart).unflatten(1, (head.out_features, head.out_features))
    return middle.unsqueeze(2) - middle.unsqueeze(1) + reach


def _absolute(layer: nn.Linear | nn.Conv2d, half: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return functional.linear(half, layer.weight.abs())
    if layer.padding_mode != "zeros":
        raise ModelError(f"model: certified training takes convolutions padded with zeros, got {layer.padding_mode!r}")
    return functional.conv2d(half, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _normalised(layer: nn.BatchNorm1d | nn.BatchNorm2d, value: Boxed) -> Boxed:
    factor, shift = normalising(layer, value.clean)
    return Boxed(layer(value.clean), value.centre * factor + shift, value.half * factor.abs())


def normalising(layer: nn.BatchNorm1d | nn.BatchNorm2d, clean: Tensor) -> tuple[Tensor, Tensor]:
    """What a batch normalisation multiplies a clean batch with and then adds to it: `(1, c, 1, ...)`."""
    dims = [0, *range(2, clean.ndim)]
    mean, variance = clean.mean(dim=dims), clean.var(dim=dims, correction=0)
    if not by_batch(layer) and layer.running_mean is not None and layer.running_var is not None:
        mean, variance = layer.running_mean, layer.running_var
    weight: Tensor | None = layer.weight if layer.affine else None
    factor = (variance + layer.eps).rsqrt() * (1.0 if weight is None else weight)
    shift = -mean * factor + (layer.bias if layer.affine else 0.0)
    shape = (1, -1, *[1] * (clean.ndim - 2))
    return factor.view(shape), shift.view(shape)
