"""What evaluation mode is, and how a network is left as it was: one rule and one way for everything that runs one."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._C import parse_schema  # pyright: ignore[reportPrivateUsage]  # names of arguments stand nowhere else
from torch._ops import OpOverload  # pyright: ignore[reportPrivateUsage]  # has no public name
from torch.nn.parameter import is_lazy

from caveat.errors import ModelError

__all__ = [
    "by_batch",
    "check",
    "check_initialised",
    "check_module",
    "drops",
    "in_eval_mode",
    "modes_restored",
    "to_eval",
    "unchanged",
    "with_gradients",
    "without_gradients",
    "without_mode",
]

HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
"""Where torch keeps the hooks of a module."""
SWITCHED = ("train", "training")
"""What operations call the argument that switches dropout on, or takes statistics from the batch."""
IN_SCRIPTS = (
    "aten::dropout", "aten::dropout_", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout",
    "aten::batch_norm", "aten::rrelu", "aten::lstm", "aten::gru",
)  # fmt: skip
"""Operations with such an argument, as TorchScript names them."""


def check(model: nn.Module) -> None:
    """Refuse a network whose answer to an input is not a function of that input alone.

    Every module must be in evaluation mode, and no batch normalisation may lack running statistics: it takes those of
    the batch in any mode. In exported, traced and frozen networks the mode is part of the operations, whatever
    `training` says, so those are looked at. MC dropout needs no training mode: `posteriors.dropout`.

    Raises
    ------
    ModelError
        If it is such a network; the message names the layer.
    """
    check_module(model)
    check_initialised(model)
    passed: set[nn.Module] = set()
    for name, layer in model.named_modules():
        if layer in passed:
            continue
        who = f"its layer {name!r}" if name else "it"
        if any(_switched(layer)):
            raise ModelError(
                f"model: expected a model in evaluation mode, but {who} was traced or exported with dropout on, or "
                "with statistics of the batch, which cannot be changed now: call model.eval() and make it again"
            )
        if _exported(layer):
            passed |= set(layer.modules())
        elif getattr(layer, "training", False) and not _modeless(layer):  # frozen scripts have no mode
            raise ModelError(
                f"model: expected a model in evaluation mode, but {who} is in training mode: call model.eval()"
            )
        elif _normalises_by_batch(layer):
            raise ModelError(
                f"model: {who} normalises by the batch (a batch norm without running statistics), so that an answer "
                "depends on the other inputs: give it track_running_stats=True and train, or use another normalisation"
            )


def check_module(model: nn.Module) -> None:
    """Refuse what is no module, whatever a caller gives.

    Raises
    ------
    ModelError
        If it is none.
    """
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]  # whatever a caller gives
        raise ModelError(
            f"model: expected an nn.Module, got {type(model).__name__}: "
            + (
                "several networks are put together by posteriors.Predictive(nets[0], posteriors.ensemble.of(nets))"
                if isinstance(model, list | tuple)
                else "put what it does into a module's forward"
            )
        )


def check_initialised(model: nn.Module) -> None:
    """Refuse a network whose weights have no shape yet.

    Raises
    ------
    ModelError
        If it holds lazy layers that have seen no input.
    """
    lazy = next((name for name, weight in model.named_parameters() if is_lazy(weight)), None)
    if lazy is not None:
        raise ModelError(
            f"model: its weight {lazy!r} has no shape yet (a lazy layer): run the model once on a batch of inputs, or "
            "load its weights"
        )


def _exported(layer: nn.Module) -> bool:
    """Whether it is a list of elementary operations: modes mean nothing to it, and it cannot change them."""
    return isinstance(layer, fx.GraphModule) and any(isinstance(node.target, OpOverload) for node in layer.graph.nodes)


def _modeless(layer: nn.Module) -> bool:
    """Whether it is quantised: such layers do the same in any mode, and leave the conversion in training mode."""
    return type(layer).__module__.startswith("torch.ao.nn.quantized") and not getattr(layer, "dropout", 0)


def by_batch(layer: nn.Module) -> bool:
    """Whether a batch normalisation takes mean and variance of the batch, as in training."""
    return layer.training or getattr(layer, "running_mean", None) is None


def drops(layer: nn.Dropout) -> bool:
    """Whether dropout is on."""
    return layer.training and layer.p > 0


def _normalises_by_batch(layer: nn.Module) -> bool:
    norm = isinstance(layer, nn.modules.batchnorm._BatchNorm) or "BatchNorm" in getattr(layer, "original_name", "")  # pyright: ignore[reportPrivateUsage]  # the only common base
    return norm and getattr(layer, "running_mean", None) is None


def _switched(layer: nn.Module) -> Iterator[bool]:
    """Of operations in a graph, whether their argument `training` is a constant that says so."""
    if isinstance(layer, fx.GraphModule):
        for node in layer.graph.nodes:
            given = dict(node.kwargs)
            if isinstance(node.target, OpOverload):
                schema: Any = getattr(node.target, "_schema")  # noqa: B009  # private
                names = [argument.name for argument in schema.arguments]
                given |= dict(zip(names, node.args, strict=False))
            yield node.op == "call_function" and any(given.get(name) is True for name in SWITCHED)
    elif isinstance(layer, torch.jit.ScriptModule) and hasattr(layer, "inlined_graph"):
        graph: Any = layer.inlined_graph
        for kind in IN_SCRIPTS:
            for node in graph.findAllNodes(kind, recurse=True):
                names = [argument.name for argument in parse_schema(node.schema()).arguments]
                constants = zip(names, (value.toIValue() for value in node.inputs()), strict=False)
                yield any(name in SWITCHED and value is True for name, value in constants)


@contextmanager
def without_gradients() -> Generator[None]:
    """No graph, and no inference tensors either, whatever the caller is in.

    A network that makes a table when it first runs would keep that table, and could not be trained afterwards.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def with_gradients() -> Generator[None]:
    """A graph, whatever the caller is in; inputs must be cloned within, since his may be inference tensors."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def in_eval_mode(model: nn.Module) -> Generator[None]:
    """Every module in evaluation mode within, and in the mode it was in afterwards: for a look in mid-training."""
    with modes_restored(model):
        to_eval(model)
        yield


def to_eval(model: nn.Module) -> nn.Module:
    """The network in evaluation mode; one that is exported, or holds one, as it is: it has no mode and refuses."""
    return model if any(_exported(layer) for layer in model.modules()) else model.eval()


def without_mode(wrapper: nn.Module) -> None:
    """Give a module that only puts something around a network no mode of its own: `check` looks at the network's.

    `wrapper.train(...)` would switch the network's layers too, those that were left in training mode among them.
    """
    wrapper.training = False


@contextmanager
def unchanged(model: nn.Module) -> Generator[None]:
    """Leave a network as it was, whatever the block does: modes, `requires_grad`, `.grad` and hooks.

    Gradients are set aside meanwhile, so that a backward pass within adds nothing to them. Weights and buffers are not
    copied: who changes those restores them.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    hooks = [(own, own.copy()) for layer in model.modules() for own in _hooks(layer)]
    with modes_restored(model):
        try:
            for parameter, _, gradient in parameters:
                if gradient is not None:
                    parameter.grad = None
            yield
        finally:
            for parameter, required, gradient in parameters:
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)
                if parameter.grad is not gradient:
                    parameter.grad = gradient
            for own, before in hooks:
                own.clear()
                own.update(before)


@contextmanager
def modes_restored(model: nn.Module) -> Generator[None]:
    """Every module in the mode it was in afterwards; for those who mean to leave gradients."""
    modes = [(layer, layer.training) for layer in model.modules() if hasattr(layer, "training")]
    try:
        yield
    finally:
        for layer, training in modes:
            if layer.training != training:
                layer.training = training


def _hooks(layer: nn.Module) -> Iterator[dict[int, Any]]:
    for name in HOOKS:
        own = getattr(layer, name, None)
        if isinstance(own, dict):
            yield own
