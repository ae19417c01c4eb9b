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

from caveat import evaluation
from caveat.batches import Inputs
from caveat.calls import as_written, check_watchable, tensor
from caveat.errors import ModelError, nearest
from caveat.precision import wide
from caveat.types import Head

__all__ = ["HeadLayer", "agrees", "before", "capture", "find", "forward"]


@dataclass(frozen=True)
class HeadLayer:
    """Where the features are taken, and what makes logits of them."""

    name: str
    """Dotted name of the layer in the model."""
    pooled: bool
    """True if its input is averaged over its pixels or tokens."""
    head: Head | None
    """None of a layer that features are taken before, but that does not make the logits."""

    @property
    def weights(self) -> Head | None:
        """Weight and bias where observations are: on the CPU, whatever device the model is on."""
        if self.head is None:
            return None
        weight, bias = self.head
        return weight.detach().cpu(), bias.detach().cpu()


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    """One forward pass, and a clear word if what comes out is not a tensor of logits."""
    logits = tensor(model(inputs))
    if logits.ndim < 2 or logits.shape[0] != inputs.shape[0] or not logits.is_floating_point():
        raise ModelError(
            f"model: expected logits (n, c) or (n, c, h, w) for {len(inputs)} inputs, got {logits.dtype} of shape "
            f"{tuple(logits.shape)}"
        )
    if logits.shape[1] < 2:
        raise ModelError(f"model: expected logits of at least two classes, got shape {tuple(logits.shape)}")
    return logits


def find(model: nn.Module, inputs: Inputs, *, name: str | None = None) -> HeadLayer:
    """Find the head by one forward pass over `inputs`, or check the one that is named.

    Raises
    ------
    ModelError
        If no layer (or not the named one) makes the logits as a linear map of its input.
    """
    check_watchable(model)
    modules = dict(model.named_modules())
    if name is not None and name not in modules:
        raise ModelError(f"head: the model has no layer {name!r}; {nearest(name, modules)}")
    layers = {name: modules[name]} if name is not None else {k: m for k, m in modules.items() if _could_be_head(m)}
    seen: dict[str, Tensor] = {}

    def keep(layer_name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = _given(args, named)
            if given is not None and given.is_floating_point():
                seen[layer_name] = given.detach().clone()  # it may be changed in place later

        return hook

    handles = [layer.register_forward_pre_hook(keep(key), with_kwargs=True) for key, layer in layers.items()]
    try:
        with evaluation.without_gradients(), as_written(model):
            logits = forward(model, inputs.clone()).detach().clone()
    finally:
        for handle in handles:
            handle.remove()
    for layer_name in reversed(seen):
        layer = layers[layer_name]
        if not _could_be_head(layer):
            continue
        head, features = _weights(layer), seen[layer_name]
        columns: tuple[int, ...] | None = getattr(model, "columns", None)
        if columns is not None and max(columns) < len(head[0]):  # of a network used for some of its classes
            head = head[0][list(columns)], head[1][list(columns)]
        for pooled in (False, True):
            if agrees(head, features.mean(dim=(2, 3)) if pooled and features.ndim == 4 else features, logits):
                return HeadLayer(layer_name, pooled, head)
    if name is not None:
        raise ModelError(
            f"head: layer {name!r} ({type(layers[name]).__name__}) does not produce the model's logits: what it gives "
            "is changed before it leaves the network (a log_softmax, a temperature, a clamp), or it computes something "
            "else than a linear map; give the network without what follows the layer"
        )
    raise ModelError(
        "model: found no linear or 1x1-convolution layer whose weight, applied to its input, gives the logits; name it "
        "with head=..., name a layer before which features are taken with features=..., or use only scores that need "
        "logits alone (msp, entropy, margin, gen, max_logit, energy)"
    )


def before(model: nn.Module, inputs: Inputs, name: str) -> HeadLayer:
    """A layer whose input serves as features, whatever makes logits of them; maps and tokens are averaged.

    Raises
    ------
    ModelError
        If the model has no such layer, or it is not called on numbers, sample by sample.
    """
    check_watchable(model)
    modules = dict(model.named_modules())
    if not name or name not in modules:
        raise ModelError(f"features: the model has no layer {name!r}; {nearest(name, modules)}")
    with evaluation.without_gradients(), capture(model, HeadLayer(name, False, None)) as seen:
        forward(model, inputs.clone())
    found = seen[0] if seen else None
    if found is None or not found.is_floating_point() or len(found) != len(inputs) or found.ndim not in (2, 3, 4):
        what = "it was not called on a tensor" if found is None else f"its input is {found.dtype} {tuple(found.shape)}"
        raise ModelError(
            f"features: expected a layer called on floating numbers (n, d), (n, t, d) or (n, c, h, w), but of {name!r} "
            f"{what}"
        )
    return HeadLayer(name, found.ndim > 2, None)


def _mean(given: Tensor) -> Tensor:
    """Averages `(n, d)` over the pixels of maps `(n, d, h, w)` or the tokens of sequences `(n, t, d)`."""
    return given.mean(dim=(2, 3) if given.ndim == 4 else 1)


def _given(args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """What a layer is called on, by place or by keyword."""
    return next((one for one in (*args[:1], *named.values()) if isinstance(one, Tensor)), None)


def agrees(head: Head, features: Tensor, logits: Tensor) -> bool:
    """Whether `W f + b` are the logits: the one rule by which a layer is the head.

    A subclass that computes something else, a hook, a change in place, padding: whatever stands between is noticed.
    """
    weight, bias = (part.to(torch.float64) for part in head)
    if features.ndim not in (2, 4) or features.ndim != logits.ndim or features.shape[1] != weight.shape[1]:
        return False
    made = torch.einsum("nd...,cd->nc...", features.to(torch.float64), weight)
    made = made + bias.view(1, -1, *[1] * (made.ndim - 2))
    if made.shape != logits.shape:
        return False
    # what a sum of d products loses in the type of the logits
    slack = 8 * torch.finfo(logits.dtype).eps * weight.shape[1] ** 0.5
    size = float(made.abs().max()) + float(bias.abs().max()) + 1e-30
    return bool((made - logits).abs().max() <= max(slack, 1e-5) * size)


def _could_be_head(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)  # of parametrised layers it is computed
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1
    return weight.ndim == 2


def _weights(layer: nn.Module) -> Head:
    weight: Tensor = getattr(layer, "weight").detach().flatten(1).clone()  # noqa: B009  # a parameter or computed
    bias: Tensor | None = getattr(layer, "bias", None)
    bias = weight.new_zeros(len(weight)) if not isinstance(bias, Tensor) else bias.detach().clone()
    if len(weight) == 1:  # one logit z is two classes with the logits (0, z), as `models.Adapted` gives them
        weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
    return wide(weight), wide(bias)  # as the features are kept


@contextmanager
def capture(model: nn.Module, layer: HeadLayer) -> Generator[list[Tensor]]:
    """Within this context every forward pass leaves the head's input in the list that is given.

    Features come as `(n, d)`: of a pooled layer their mean over pixels or tokens; of a dense one `(n, d, h, w)`.
    """
    seen: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        # a copy: what comes after may change it in place
        if (given := _given(args, named)) is not None:
            seen[:] = [_mean(given) if layer.pooled else given.clone()]

    handle = model.get_submodule(layer.name).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with as_written(model):
            yield seen
    finally:
        handle.remove()
