"""From a module to its list of operations, by torch.export."""

import io
import logging
import operator
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from caveat.errors import DataError, ModelError
from caveat.evaluation import check
from caveat.graph.graph import Graph
from caveat.graph.lowering import LOWER
from caveat.graph.value import Adds, Unsuited, Value

__all__ = ["assert_same", "trace"]

SAYS_NOTHING = {torch.ops.aten._assert_tensor_metadata.default}
"""Operations without a result, which `.float()` brings along."""
PARTS = {"PARAMETER", "BUFFER", "CONSTANT_TENSOR"}


def trace(model: nn.Module, inputs: Float[Tensor, "n ..."]) -> Graph:
    """The model as a list of elementary operations, from one run on an example.

    Any module whose path does not depend on the values of its input, made of linear maps, convolutions, ReLU and its
    leaky and clipped kin, max and average pooling, batch normalisation in eval mode, arithmetic with constants, sums,
    concatenation (with constants too), padding, slices, flips and reshapes, and of the curves in `CURVES`, however it
    is written (modules, functions, methods). It takes seconds.
    The list is run on the example, in another order and number than traced, and must give what the model gives.

    Parameters
    ----------
    inputs
        At least one sample of the shape that will be looked at.

    Raises
    ------
    ModelError
        If the model is in training mode, uses another operation (the message says which, and where), ties samples
        together, or is not reproduced.
    DataError
        If there is no input.
    """
    check(model)
    if not len(inputs) or not inputs.is_floating_point():
        raise DataError(f"inputs: expected at least one floating sample, got {inputs.dtype} of {tuple(inputs.shape)}")
    pair = inputs.detach()[:2] if len(inputs) > 1 else torch.cat([inputs.detach()] * 2)
    graph = _lowered(_exported(model, pair), pair)
    assert_same(graph, model, pair[[1, 0, 1]])
    return graph


def _exported(model: nn.Module, pair: Tensor) -> Any:
    from torch.export import export  # takes a second to import

    with warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]), _silent():
        warnings.simplefilter("ignore")  # of torch about itself
        try:
            return export(model, (pair,), strict=False).run_decompositions({})
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise ModelError(
                "model: torch.export cannot follow it (a path that depends on the input's values?): "
                f"{reason[0] if reason else type(error).__name__}"
            ) from error


@contextmanager
def _silent() -> Generator[None]:
    """Without what torch logs of a network that it cannot follow: the error says it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _lowered(program: Any, pair: Tensor) -> Graph:
    known: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            known[spec.arg.name] = Value(0, tuple(pair.shape[1:]))
        elif spec.kind.name in PARTS:
            held = program.state_dict.get(spec.target)
            held = program.constants[spec.target] if held is None else held
            known[spec.arg.name] = held.detach().clone()
    lowering = Adds(len(pair))
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target not in SAYS_NOTHING:
            known[node.name] = _call(lowering, node, known)
    (output,) = next(node for node in program.graph.nodes if node.op == "output").args
    if any(spec.kind.name == "USER_INPUT_MUTATION" for spec in program.graph_signature.output_specs):
        raise ModelError("model: its forward pass writes into its input (x.clamp_, x += ...); write x = x.clamp(...)")
    if len(output) != 1 or not isinstance(output[0], fx.Node) or not isinstance(known[output[0].name], Value):
        raise ModelError(
            "model: expected one tensor that depends on the input, got something else; return logits alone"
        )
    graph = Graph(tuple(lowering.nodes), known[output[0].name].place, tuple(pair.shape[1:]))
    return graph.to(pair.dtype, pair.device)  # one type throughout, whatever the model casts to on its way


def _call(lowering: Adds, node: fx.Node, known: dict[str, Any]) -> Any:
    def resolved(argument: fx.Node) -> Any:
        return known[argument.name]

    args, kwargs = fx.map_arg(node.args, resolved), fx.map_arg(node.kwargs, resolved)
    target: Any = node.target
    if target is operator.getitem or not _depends((args, list(kwargs.values()))):
        with torch.no_grad():
            return target(*args, **kwargs)  # constants of the model among themselves
    where = _place(node)
    lower = LOWER.get(target)
    if lower is None:
        raise ModelError(
            f"model: {target} (in {where}) is none of the operations that bounds and rays know (docs/bounds.md lists "
            "them): exchange that layer, or attack the network, which takes any"
        )
    names = [argument.name for argument in target._schema.arguments]
    defaults = {a.name: a.default_value for a in target._schema.arguments if a.has_default_value()}
    given = defaults | dict(zip(names, args, strict=False)) | kwargs
    shapes = [tuple(v.shape) for v in _tensors(node.meta["val"])]
    if any(not shape or shape[0] != lowering.batch for shape in shapes):
        raise ModelError(f"model: {target} (in {where}) ties samples together or drops the batch: shape {shapes[0]}")
    try:
        return lower(lowering, given, [shape[1:] for shape in shapes], where)
    except Unsuited as reason:
        raise ModelError(f"model: {target} (in {where}): {reason}") from None


def _depends(arguments: Any) -> bool:
    if isinstance(arguments, tuple | list):
        return any(_depends(argument) for argument in arguments)
    return isinstance(arguments, Value)


def _tensors(value: Any) -> list[Tensor]:
    """The results of a node; batch normalisation has empty ones besides."""
    return [value] if isinstance(value, Tensor) else [v for v in value if isinstance(v, Tensor) and v.numel()]


def _place(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0] or "the model's forward") if stack else "the model's forward"


def assert_same(graph: Graph, model: nn.Module, inputs: Tensor) -> None:
    """Refuse a list of operations that does not give the model's output at the inputs. Costs a forward pass of each.

    Raises
    ------
    ModelError
        If it is of another model, or of other weights, or the model is none that the list can say.
    """
    with torch.no_grad():
        expected = model(inputs.clone())
        found = graph.to(torch.float64, inputs.device)(inputs.double())
    if not bool(torch.isfinite(expected).all()):
        raise ModelError(
            "model: its output is NaN or infinite, so nothing can be said of it; look for such numbers in its weights "
            "and in the inputs"
        )
    near = min(1e4 * torch.finfo(inputs.dtype).eps, 0.1) * float(expected.abs().max()) + torch.finfo(inputs.dtype).tiny
    if expected.shape != found.shape or not float((expected.to(found.dtype) - found).abs().max()) <= near:
        raise ModelError(
            "model: its list of operations does not give its own output; it draws random numbers, changes itself, ties "
            "samples together, or does something the list cannot say; or `graph` is of another model, or of weights "
            "that were changed since: trace it again"
        )
