"""How the per-sample gradient of a parameter follows from a layer's inputs and the gradient at its outputs.

A rule is `(layer, inputs, delta) -> form`, in which every sample is a row of `inputs` and of `delta`.
"""

from collections.abc import Callable
from math import prod
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import group_norm, layer_norm, pad

from caveat.scores.gradients.forms import Form, Lookup, Product

__all__ = ["RULES", "Conv", "Rule", "unfolded", "workspace"]

Conv: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
Rule: TypeAlias = Callable[..., Form]


def linear_weight(layer: nn.Linear, inputs: Float[Tensor, "n *t a"], delta: Float[Tensor, "n *t b"]) -> Product:
    """A sum over positions of outer products; of one, if the layer is applied to vectors."""
    n = len(inputs)
    return Product(delta.reshape(n, 1, -1, layer.out_features), inputs.reshape(n, 1, -1, layer.in_features))


def conv_weight(layer: Conv, inputs: Float[Tensor, "n a *pixels"], delta: Float[Tensor, "n b *out"]) -> Product:
    """Outer products of output gradients and the input patches they saw, summed over pixels."""
    left = delta.reshape(len(delta), layer.groups, layer.out_channels // layer.groups, -1)
    return Product(left.mT, unfolded(layer, inputs).mT)


def unfolded(layer: Conv, inputs: Float[Tensor, "n a *pixels"]) -> Float[Tensor, "n g b t"]:
    """The patches that each output pixel sees, as columns, per group of channels."""
    padding = layer._reversed_padding_repeated_twice  # pyright: ignore[reportPrivateUsage]  # "same" worked out by torch
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        inputs = pad(inputs, tuple(padding), mode=mode)
    own = list(zip(inputs.shape[2:], inputs.stride()[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True))
    outward = [(size - d * (k - 1) - 1) // s + 1 for size, _, k, s, d in own]
    n, channels = inputs.shape[:2]
    patches = inputs.as_strided(
        (n, channels, *layer.kernel_size, *outward),
        (*inputs.stride()[:2], *(step * d for _, step, _, _, d in own), *(step * s for _, step, _, s, _ in own)),
        inputs.storage_offset(),
    )
    return patches.reshape(n, layer.groups, channels // layer.groups * prod(layer.kernel_size), prod(outward))


def embedding_weight(layer: nn.Embedding, inputs: Tensor, delta: Float[Tensor, "n *t d"]) -> Lookup:
    """The rows that were looked up; the padding row learns nothing."""
    tokens, values = inputs.flatten(1), delta.reshape(len(delta), -1, layer.embedding_dim)
    if layer.padding_idx is not None:
        values = values.masked_fill((tokens == layer.padding_idx).unsqueeze(2), 0.0)
    return Lookup(tokens, values, layer.num_embeddings)


def over_channels(layer: nn.Module, inputs: Tensor, delta: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c"]:
    """A bias that is added to every pixel of a channel."""
    return delta.flatten(2).sum(dim=2) if delta.ndim > 2 else delta


def over_positions(layer: nn.Linear, inputs: Tensor, delta: Float[Tensor, "n *t b"]) -> Float[Tensor, "n b"]:
    """A bias that is added at every position."""
    return delta.flatten(1, -2).sum(dim=1) if delta.ndim > 2 else delta


def batch_norm_weight(
    layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d,
    inputs: Float[Tensor, "n c *pixels"],
    delta: Float[Tensor, "n c *pixels"],
) -> Float[Tensor, "n c"]:
    """Output gradients times inputs normalised by the running statistics."""
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    shape = (1, -1) + (1,) * (inputs.ndim - 2)
    found = over_channels(layer, inputs, (inputs - mean.view(shape)).mul_(delta))
    return found * (variance + layer.eps).rsqrt()


def layer_norm_weight(layer: nn.LayerNorm, inputs: Float[Tensor, "n *t"], delta: Float[Tensor, "n *t"]) -> Tensor:
    """Output gradients times normalised inputs."""
    normal = layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    return layer_norm_bias(layer, inputs, normal.mul_(delta))


def layer_norm_bias(layer: nn.LayerNorm, inputs: Tensor, delta: Float[Tensor, "n *t"]) -> Float[Tensor, "n k"]:
    """Output gradients, summed over positions."""
    return delta.reshape(len(delta), -1, prod(layer.normalized_shape)).sum(dim=1)


def group_norm_weight(layer: nn.GroupNorm, inputs: Float[Tensor, "n c *p"], delta: Float[Tensor, "n c *p"]) -> Tensor:
    """Output gradients times normalised inputs."""
    return over_channels(layer, inputs, group_norm(inputs, layer.num_groups, eps=layer.eps).mul_(delta))


def workspace(layer: nn.Module, inputs: Tensor, delta: Tensor) -> int:
    """Bytes that a rule for the weight makes for one sample, the gradient itself apart."""
    if isinstance(layer, Conv):
        patch = layer.in_channels * prod(layer.kernel_size)
        return delta[0].numel() // layer.out_channels * patch * delta.element_size()
    return inputs[0].numel() * delta.element_size()


_CONV: dict[str, Rule] = {"weight": conv_weight, "bias": over_channels}
_BATCH_NORM: dict[str, Rule] = {"weight": batch_norm_weight, "bias": over_channels}

RULES: dict[type[nn.Module], dict[str, Rule]] = {
    nn.Linear: {"weight": linear_weight, "bias": over_positions},
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.Conv3d: _CONV,
    nn.Embedding: {"weight": embedding_weight},
    nn.BatchNorm1d: _BATCH_NORM,
    nn.BatchNorm2d: _BATCH_NORM,
    nn.BatchNorm3d: _BATCH_NORM,
    nn.LayerNorm: {"weight": layer_norm_weight, "bias": layer_norm_bias},
    nn.GroupNorm: {"weight": group_norm_weight, "bias": over_channels},
}
"""By exact type of layer (a subclass may compute something else) and name of the parameter."""
