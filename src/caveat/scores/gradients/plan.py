"""Which layers are watched, which parameters have a rule, and what the rules give for one look."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat import evaluation
from caveat.batches import Inputs
from caveat.calls import check_graph, recorded, with_weights
from caveat.errors import ModelError
from caveat.scores.gradients import moments
from caveat.scores.gradients.forms import Form, added, full, sums
from caveat.scores.gradients.rules import RULES, workspace
from caveat.types import Call

__all__ = ["Pairs", "Source", "by_rule", "grouped", "pairs", "sources", "without_rule"]

Source: TypeAlias = tuple[str, nn.Module, str]
"""A layer's name, the layer, and the name by which it holds a parameter."""
Pairs: TypeAlias = Mapping[str, Sequence[tuple[Tensor, Tensor]]]
"""Per layer, inputs and output gradients of each call; every sample is a row."""


def sources(model: nn.Module, *, biases: bool) -> dict[str, list[Source]]:
    """For every parameter, by its first name, the layers that hold it."""
    names: dict[int, str] = {}
    found: dict[str, list[Source]] = {}
    for name, layer in model.named_modules():
        for local, parameter in layer.named_parameters(recurse=False):
            first = names.setdefault(id(parameter), f"{name}.{local}" if name else local)
            found.setdefault(first, []).append((name, layer, local))
    return {name: held for name, held in found.items() if biases or not _is_bias(name)}


def _is_bias(name: str) -> bool:
    return re.search(r"(^|[._])bias(\.original\d*)?$", name) is not None


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """The parameters of each layer; a layer's weight and bias together, a weight in factors under its layer."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer = re.sub(r"(^|\.)parametrizations\..*", "", name.rpartition(".")[0])
        layers.setdefault(layer or "(model)", []).append(name)
    return layers


def pairs(
    calls: Mapping[str, Sequence[Call]], logits: Tensor, directions: Float[Tensor, "n c"], layers: Sequence[str]
) -> Pairs:
    """One backward pass from `directions` . logits to the outputs of all layers."""
    made = [(name, call, call.edge) for name in layers for call in calls.get(name, ()) if call.edge is not None]
    edges = [edge for _, _, edge in made]
    found: Sequence[Tensor | None] = ()
    if edges:
        check_graph(logits)
        given = torch.autograd.grad((logits,), edges, (directions,), retain_graph=True, allow_unused=True)
        found = cast("Sequence[Tensor | None]", given)  # torch's stub does not know what allow_unused does
    joined: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    for (name, call, _), delta in zip(made, found, strict=True):
        if delta is not None:
            joined[name] += _by_sample(call.inputs[0].detach(), delta, len(logits))
    return joined


def _by_sample(inputs: Tensor, delta: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Where a sample has become k rows (windows, frames), k calls with a row a sample."""
    if len(delta) == count:
        return [(inputs, delta)]
    split = [part.unflatten(0, (count, -1)).unbind(dim=1) for part in (inputs, delta)]
    return list(zip(*split, strict=True))


def _form(held: Sequence[Source], found: Pairs, part: slice) -> Form | None:
    forms = [
        RULES[type(layer)][local](layer, inputs[part], delta[part])
        for name, layer, local in held
        for inputs, delta in found[name]
    ]
    return added(forms) if forms else None


def by_rule(held: Sequence[Source], found: Pairs, *, count: int, budget: int) -> moments.Sums:
    """Sums over every sample's gradient of one parameter; `budget` bytes for what is made on the way."""
    made = [(layer, pair) for name, layer, _ in held for pair in found[name]]
    parameter = held[0][1].get_parameter(held[0][2])
    if not made:
        return moments.of_zeros(count, parameter.numel(), parameter)
    size = sum(workspace(layer, *pair) for layer, pair in made)
    step = max(1, budget // max(size, 1))
    rows: list[Tensor] = []
    for start in range(0, count, step):
        form = _form(held, found, slice(start, start + step))
        assert form is not None
        rows.append(sums(form, budget=budget))
    return torch.cat(rows)


@dataclass(frozen=True)
class _Trial:
    """Two samples' true gradients, and the calls that were seen meanwhile."""

    rows: Mapping[str, Float[Tensor, "n k"]]
    found: Pairs


def _trial(model: nn.Module, inputs: Inputs, names: Sequence[str], layers: Sequence[str]) -> _Trial:
    own = dict(model.named_parameters())
    leaves = {name: own[name].detach().requires_grad_() for name in names}
    with evaluation.with_gradients():
        inputs = inputs.detach().clone()
        with recorded(model, layers) as calls:
            logits: Any = with_weights(model, leaves, inputs)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
            raise ModelError(f"model: expected logits (n, c) for {len(inputs)} inputs, got {_what(logits)}")
        if logits.shape[1] < 2:  # the softmax of one logit is 1, and every gradient 0
            raise ModelError(f"model: expected logits of at least two classes, got {_what(logits)}")
        # any direction does, so one without zeros or symmetries
        directions = torch.arange(1.0, logits.numel() + 1, device=logits.device).cos().to(logits.dtype).view_as(logits)
        values = (logits * directions).sum(dim=1).unbind()
    own_leaves = list(leaves.values())
    each = [
        torch.autograd.grad(value, own_leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in values
    ]
    rows = {name: torch.stack(grads).flatten(1) for name, grads in zip(names, zip(*each, strict=True), strict=True)}
    return _Trial(rows, _pairs_that_can_be(calls, logits, directions, layers))


def _pairs_that_can_be(
    calls: Mapping[str, Sequence[Call]], logits: Tensor, directions: Tensor, layers: Sequence[str]
) -> Pairs:
    wrong = (RuntimeError, IndexError, AttributeError)  # inputs by keyword, or not a row a sample
    try:
        return pairs(calls, logits, directions, layers)
    except wrong:
        found: dict[str, Sequence[tuple[Tensor, Tensor]]] = {}
        for layer in layers:
            with suppress(*wrong):
                found |= pairs(calls, logits, directions, [layer])
        return found


def without_rule(model: nn.Module, inputs: Inputs, held: Mapping[str, list[Source]]) -> list[str]:
    """Names of the parameters whose gradients no rule gives; judged by the true gradients of one or two samples.

    So a weight that is also used outside of its layer, or a layer that works on tokens in an unusual order, is found.
    """
    ruled = {name for name, own in held.items() if all(local in RULES.get(type(layer), ()) for _, layer, local in own)}
    layers = list(dict.fromkeys(layer for name in held if name in ruled for layer, _, _ in held[name]))
    trial = _trial(model, inputs, list(held), layers)
    return [name for name, own in held.items() if name not in ruled or not _agrees(own, trial, trial.rows[name])]


def _agrees(held: Sequence[Source], trial: _Trial, true: Float[Tensor, "n k"]) -> bool:
    try:
        form = _form(held, trial.found, slice(None))
        # a layer that was not called: its parameters are unused, or used behind its back
        ours = full(form) if form is not None else None
    except (RuntimeError, ValueError, IndexError, KeyError):
        return False
    if ours is None or ours.shape != true.shape:
        return False
    size = float(true.abs().max())
    return float((ours - true).abs().max()) <= torch.finfo(true.dtype).eps ** 0.5 * size


def _what(found: object) -> str:
    return f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
