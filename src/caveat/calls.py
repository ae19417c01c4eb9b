"""What the layers of a model are given and give, written down while it runs."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from caveat.errors import ModelError
from caveat.types import Call

__all__ = ["check_watchable", "recorded", "tensor"]


def tensor(outputs: object) -> Tensor:
    """What a network gives, and a clear word if it is a dictionary or a tuple."""
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"model: expected a tensor of logits (n, c), got {type(outputs).__name__}; wrap the model in a module "
            "whose forward returns the logits alone"
        )
    return outputs


def check_watchable(model: nn.Module) -> None:
    """Refuse a network whose layers can't be watched while it runs.

    Raises
    ------
    ModelError
        If it is, or holds, a scripted one.
    """
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in model.modules()):
        raise ModelError(
            "model: it is scripted or traced (TorchScript), so that no layer can be watched: give the network itself, "
            "or use only scores from logits"
        )


@contextmanager
def recorded(model: nn.Module, layers: Iterable[str]) -> Generator[dict[str, list[Call]]]:
    """Within this context every call of one of `layers` is added to the lists that are given; no hook stays.

    While gradients are on, an output that is in no graph yet (frozen weights, integer inputs) starts one.
    """
    found: dict[str, list[Call]] = {name: [] for name in layers}
    if found:
        check_watchable(model)

    def keep(name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            edge, started = None, None
            if torch.is_grad_enabled() and isinstance(output, Tensor) and output.is_floating_point():
                if not output.requires_grad:
                    output = started = output.detach().requires_grad_().clone()  # not a leaf: it may change in place
                edge = get_gradient_edge(output)
            found[name].append(Call(inputs, output, edge))
            return started

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in found]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
