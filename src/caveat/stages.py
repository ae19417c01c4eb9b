"""The stages of a network: one layer per spatial size, found by running it once."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from caveat import evaluation, heads

__all__ = ["activations"]

_PASSIVE = (nn.Flatten, nn.Dropout, nn.Identity, nn.Softmax)


def activations(model: nn.Module, inputs: Tensor, *, most: int = 5) -> dict[str, Tensor]:
    """Run the model on a few inputs; name and output of the last layer of every stage, in order.

    A stage is a run of layers whose outputs have the same height and width (convolutional networks), number of tokens
    (transformers) or, for vectors, length. The logits are no stage. Of more than `most` stages the last are taken.
    """
    seen: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not isinstance(layer, _PASSIVE):
                seen.append((name, output))

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in model.named_modules() if name]
    try:
        with evaluation.without_gradients():
            logits = heads.forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    stages: dict[tuple[int, ...], tuple[str, Tensor]] = {}
    for name, output in seen:
        if len(output) != len(inputs) or output.ndim not in (2, 3, 4) or output.shape == logits.shape:
            continue
        size = tuple(output.shape[2:]) if output.ndim == 4 else (output.ndim, *output.shape[1:])
        stages.pop(size, None)  # the last one counts, and stands where it was last seen
        stages[size] = (name, output)
    return dict(list(stages.values())[-most:])
