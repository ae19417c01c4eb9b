"""What the layers of a model are given and give, written down while it runs."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.func import functional_call

from caveat.batches import Inputs
from caveat.errors import ModelError
from caveat.types import Call

__all__ = ["as_written", "check_exchangeable", "check_graph", "check_watchable", "recorded", "tensor", "with_weights"]


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


def as_written(model: nn.Module) -> AbstractContextManager[Any]:
    """Within, a compiled network runs as it was written: hooks see its layers, and other weights are its own."""
    compiled = any(
        hasattr(layer, "_orig_mod") or getattr(layer, "_compiled_call_impl", None) is not None
        for layer in model.modules()
    )  # torch.compile(model) and model.compile()
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def check_exchangeable(model: nn.Module) -> None:
    """Refuse a network that can't be run with other weights than its own.

    Raises
    ------
    ModelError
        If it is, or holds, a scripted one.
    """
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in model.modules()):
        raise ModelError(
            "model: it is scripted or traced (TorchScript), so that it can't be run with other weights, as posteriors "
            "and gradients by weights need: give the network itself"
        )


def check_graph(logits: Tensor) -> None:
    """Refuse an answer that no gradient goes back from.

    Raises
    ------
    ModelError
        If it depends on its inputs and weights in no way that torch can differentiate.
    """
    if not logits.requires_grad:
        raise ModelError(
            "model: its answer has no gradient (it is quantised, rounds, or detaches), which this needs: give the "
            "network before it was quantised, or use only scores from logits and features"
        )


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """What a network gives with other weights, by name, in place of its own; those that are not named stay.

    Raises
    ------
    ModelError
        As `check_exchangeable`.
    """
    check_exchangeable(model)
    while isinstance(model, nn.DataParallel):  # torch puts no weights into one; a chunk for one device is all it gets
        weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
        model = model.module
    with as_written(model):
        return functional_call(model, dict(weights), (inputs,))


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
        with as_written(model) if found or torch.is_grad_enabled() else nullcontext():
            yield found
    finally:
        for handle in handles:
            handle.remove()
