"""The head of a classifier: the last linear or 1x1-convolution layer, the one that produces the logits.

Its input is what all feature scores call `features`. It is found by running the model once on one batch and looking
which layer's output is the model's output, so it works for any architecture; or it is told by name.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caveat.errors import ModelError, nearest
from caveat.types import Head

__all__ = ["HeadLayer", "capture", "find", "forward"]


@dataclass(frozen=True)
class HeadLayer:
    """Where the features are taken, and what makes logits of them."""

    name: str
    """Dotted name of the layer in the model."""
    pooled: bool
    """True if the layer is a convolution whose output is averaged over its pixels to give the logits."""
    head: Head


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    """One forward pass, and a clear word if what comes out is not a tensor of logits."""
    logits = model(inputs)
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"model: expected a tensor of logits (n, c), got {type(logits).__name__}; wrap the model in a module "
            "whose forward returns the logits alone"
        )
    if logits.ndim < 2 or len(logits) != len(inputs) or not logits.is_floating_point():
        raise ModelError(
            f"model: expected logits (n, c) or (n, c, h, w) for {len(inputs)} inputs, got {logits.dtype} of shape "
            f"{tuple(logits.shape)}"
        )
    if logits.shape[1] < 2:
        raise ModelError(f"model: expected logits of at least two classes, got shape {tuple(logits.shape)}")
    return logits


def find(model: nn.Module, inputs: Tensor, *, name: str | None = None) -> HeadLayer:
    """Find the head by one forward pass over `inputs`, or check the one that is named.

    Raises
    ------
    ModelError
        If no layer (or not the named one) makes the logits as a linear map of its input.
    """
    modules = dict(model.named_modules())
    if name is not None and name not in modules:
        raise ModelError(f"head: the model has no layer {name!r}; {nearest(name, modules)}")
    layers = {name: modules[name]} if name is not None else {k: m for k, m in modules.items() if _could_be_head(m)}
    outputs: dict[str, Tensor] = {}

    def keep(layer_name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[layer_name] = output

        return hook

    handles = [layer.register_forward_hook(keep(layer_name)) for layer_name, layer in layers.items()]
    try:
        with torch.no_grad():
            logits = forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    for layer_name in reversed(outputs):
        layer, output = layers[layer_name], outputs[layer_name]
        if not _could_be_head(layer):
            continue
        if output.ndim == logits.ndim and output.shape == logits.shape and torch.equal(output, logits):
            return HeadLayer(layer_name, False, _weights(layer))
        if (
            isinstance(layer, nn.Conv2d)
            and output.ndim == 4
            and logits.ndim == 2
            and output.shape[1] == logits.shape[1]
        ):
            mean = output.mean(dim=(2, 3))
            if torch.allclose(mean, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max())):
                return HeadLayer(layer_name, True, _weights(layer))
    if name is not None:
        raise ModelError(f"head: layer {name!r} ({type(layers[name]).__name__}) does not produce the model's logits")
    raise ModelError(
        "model: found no linear or 1x1-convolution layer that produces the logits; name it with head=..., or use only "
        "scores that need logits alone (msp, entropy, margin, gen, max_logit, energy)"
    )


def _could_be_head(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1


def _weights(layer: nn.Module) -> Head:
    parameters = dict(layer.named_parameters(recurse=False))
    weight = parameters["weight"].detach().flatten(1).clone()
    bias = parameters["bias"].detach().clone() if "bias" in parameters else weight.new_zeros(len(weight))
    if weight.dtype in (torch.float16, torch.bfloat16):  # as the features are kept: scores want single precision
        weight, bias = weight.float(), bias.float()
    return weight, bias


@contextmanager
def capture(model: nn.Module, layer: HeadLayer) -> Generator[list[Tensor]]:
    """Within this context every forward pass leaves the head's input in the list that is given.

    Features come as `(n, d)`: of a pooled convolution their mean over the pixels, of a dense one `(n, d, h, w)`.
    """
    seen: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        features = args[0]
        seen[:] = [features.mean(dim=(2, 3)) if layer.pooled else features]

    handle = model.get_submodule(layer.name).register_forward_pre_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()
