"""The stages of a network: one layer per spatial size, found by running it once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from caveat import evaluation, heads
from caveat.batches import Inputs
from caveat.calls import as_written, check_watchable

__all__ = ["activations"]

_PASSIVE = (nn.Flatten, nn.Dropout, nn.Identity, nn.Softmax)


def activations(model: nn.Module, inputs: Inputs, *, most: int = 5) -> dict[str, Tensor]:
    """Run the model on a few inputs; name and output of the last layer of every stage, in order.

    A stage is a run of layers whose outputs have the same height and width (convolutional networks), number of tokens
    (transformers) or, for vectors, length. The logits are no stage, nor is what holds the signal of another (maps and
    their mean, a padded copy): the first of them counts. Of more than `most` stages the last are taken.
    """
    check_watchable(model)
    seen: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not isinstance(layer, _PASSIVE):
                seen.append((name, output))

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in model.named_modules() if name]
    try:
        with evaluation.without_gradients(), as_written(model):
            logits = heads.forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    stages: dict[tuple[int, ...], tuple[str, Tensor]] = {}
    for name, output in seen:
        if len(output) != len(inputs) or output.ndim not in (2, 3, 4) or output.shape == logits.shape:
            continue
        if output.numel() == len(output) and logits.shape[1] == 2:  # one logit for two classes
            continue
        size = tuple(output.shape[2:]) if output.ndim == 4 else (output.ndim, *output.shape[1:])
        stages.pop(size, None)  # the last one counts, and stands where it was last seen
        stages[size] = (name, output)
    different: dict[str, Tensor] = {}
    for name, output in stages.values():
        if not any(_same_signal(output, other) for other in different.values()):
            different[name] = output
    return dict(list(different.items())[-most:])


def _same_signal(one: Tensor, other: Tensor) -> bool:
    """Whether one is the other's mean over positions or a padded copy of it: then their means are proportional."""
    if one.ndim == 2 == other.ndim or one.shape[1] != other.shape[1] or 3 in (one.ndim, other.ndim):
        return False
    a, b = (x.double().flatten(2).mean(dim=2).flatten() if x.ndim == 4 else x.double().flatten() for x in (one, other))
    size = float(a.norm() * b.norm())
    rounding = max(1e-10, 16 * torch.finfo(one.dtype).eps ** 2)
    return size > 0 and abs(float(a @ b) / size - 1) < rounding
