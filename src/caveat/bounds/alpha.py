"""Alpha-CROWN: the lower lines of ReLUs whose sign is open are chosen by gradient ascent on the bound itself."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.bounds.deeppoly import MEMORY, known, least, lower
from caveat.bounds.region import Rows
from caveat.bounds.values import Known, Slopes, Split
from caveat.graph import Relu

__all__ = ["Tightened", "affords_gradient", "first", "opened", "raised", "tightened"]

STEPS = 20
RATE = 0.25
DECAY = 0.95
HELD = 1 << 27
"""Bytes of coefficients up to which a gradient is taken through the bounds of all arguments: ten times that is held."""


@dataclass(frozen=True)
class Tightened:
    """The best that was found for each linear form."""

    values: Float[Tensor, "n m"]
    known: Known
    slopes: dict[int, dict[int, Tensor]]
    """Of the last step: for each place that was bounded, those of the ReLUs before it."""


@dataclass(frozen=True)
class Raised:
    """The best lower bound of one form a sample, with the slopes, multipliers and coefficients it comes from."""

    values: Float[Tensor, " n"]
    inputs: Tensor
    at: dict[int, Tensor]
    slopes: dict[int, Tensor]
    multipliers: dict[int, Tensor]


def opened(found: Known) -> dict[int, Tensor]:
    """For each ReLU, by the place of its result, where its sign is open."""
    nodes = {k: found.graph.nodes[k - 1] for k in found.relaxed}
    ends = {k: found.bounds[node.arguments[0]] for k, node in nodes.items() if isinstance(node.operation, Relu)}
    return {k: (low < 0) & (high > 0) for k, (low, high) in ends.items()}


def affords_gradient(found: Known) -> bool:
    """Whether the arguments of all open ReLUs can be carried back to the inputs, all at once."""
    count, before = 0, found.region.low.numel()
    for mask in opened(found).values():
        count, before = count + int(mask.sum()) * before, before + mask.numel()
    return 8 * count <= HELD


def first(found: Known) -> dict[int, Tensor]:
    """DeepPoly's choice of slopes."""
    places = {k: found.graph.nodes[k - 1].arguments[0] for k in opened(found)}
    return {k: (found.bounds[p][1] >= -found.bounds[p][0]).double() for k, p in places.items()}


def tightened(
    found: Known,
    matrix: Float[Tensor, "n m c"],
    *,
    unit: float,
    steps: int = STEPS,
    until: float = math.inf,
    memory: int = MEMORY,
    enough: float = 0.0,
) -> Tightened:
    """Lower bounds of linear forms of the logits, never below those of `found`; those above `enough` are left alone.

    Slopes are chosen both for the forms and for the bounds of every ReLU's arguments on the way: there all values of a
    layer share theirs. It costs about four times DeepPoly for each of `steps`, and keeps all coefficients for the
    gradient: give it few samples at once. Of a large network (`HELD`) the forms' slopes alone are chosen. After
    `until`, a moment of `time.perf_counter`, it begins no further step.

    Formula: max over lambda in [0, 1] of the lower bound of DeepPoly with lower lines lambda x, by Adam.

    Source: Xu et al., Fast and complete: enabling complete verification with massively parallel incomplete verifiers,
    ICLR 2021 (arXiv 2011.13824).
    """
    values = lower(found, matrix, memory=memory)
    n, m, c = matrix.shape
    rows = Rows.each(n, m, device=matrix.device)
    final, inside = found.graph.output, affords_gradient(found)
    starts = [found.graph.nodes[k - 1].arguments[0] for k in sorted(found.relaxed)]
    with torch.enable_grad():
        slopes = {place: _leaves(first(found), below=place) for place in starts if inside}
        slopes[final] = {k: _leaf(rows.pick(share)) for k, share in first(found).items()}
        leaves = [leaf for each in slopes.values() for leaf in each.values()]
        for _ in _adam(leaves, steps, until):
            now = found
            if inside:
                now = known(found.graph, found.region, unit=unit, slopes=slopes, start=found, memory=1 << 62)
            wide = now.of(rows.sample)
            each = Rows.each(n * m, device=matrix.device)
            bound = least(wide, final, matrix.reshape(-1, c), each, slopes=slopes[final], early=True).values
            found = detached(now)
            values = torch.maximum(values, bound.detach().reshape(n, m))
            if not bound.requires_grad or bool((values > enough).all()):
                break
            (-bound.reshape(n, m)[values <= enough].sum()).backward(inputs=leaves)
    last = {place: {k: leaf.detach() for k, leaf in each.items()} for place, each in slopes.items()}
    return Tightened(values, found, last)


def raised(
    found: Known,
    matrix: Float[Tensor, "n ..."],
    *,
    slopes: Slopes,
    multipliers: Slopes,
    split: Split,
    steps: int,
    until: float = math.inf,
    place: int | None = None,
) -> Raised:
    """Lower bounds of one form a sample, with slopes and, where signs are given, Lagrange multipliers by ascent.

    Forms are of the value at a place, else of the logits. After `until` it begins no step but the first.

    Formula: max over lambda in [0, 1], beta >= 0 of the lower bound of the form minus sum beta sign z, z the argument
    whose sign is given. Source: Wang et al., Beta-CROWN, NeurIPS 2021 (arXiv 2103.06624), equation 8.
    """
    rows = Rows.each(len(matrix), device=matrix.device)
    best: Raised | None = None
    with torch.enable_grad():
        lines = {k: _leaf(share) for k, share in slopes.items()}
        weights = {place: _leaf(weight) for place, weight in multipliers.items()}
        for _ in _adam([*lines.values(), *weights.values()], steps, until, positive=list(weights.values())):
            pull = {place: -weight * split[place] for place, weight in weights.items()}
            bound = least(
                found, found.graph.output if place is None else place, matrix, rows, slopes=lines, multipliers=pull
            )
            best = _better(best, bound.values, bound.inputs, bound.at, lines, weights)
            if not bound.values.requires_grad or bool((best.values > 0).all()):
                break
            (-bound.values.sum()).backward(inputs=[*lines.values(), *weights.values()])
    if best is None:
        raise AssertionError("steps: expected at least 1")
    return best


def _better(
    best: Raised | None,
    values: Tensor,
    inputs: Tensor,
    at: dict[int, Tensor],
    slopes: dict[int, Tensor],
    multipliers: dict[int, Tensor],
) -> Raised:
    now = Raised(values, inputs, at, slopes, multipliers)
    parts = [{k: v.detach() for k, v in table.items()} for table in (at, slopes, multipliers)]
    if best is None:
        return Raised(
            values.detach(), inputs.detach(), parts[0], *({k: v.clone() for k, v in t.items()} for t in parts[1:])
        )
    more = now.values.detach() > best.values

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(more.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    tables = zip(parts, (best.at, best.slopes, best.multipliers), strict=True)
    return Raised(
        chosen(values.detach(), best.values),
        chosen(inputs.detach(), best.inputs),
        *({k: chosen(new[k], old[k]) for k in new} for new, old in tables),
    )


def _adam(leaves: list[Tensor], steps: int, until: float, *, positive: Iterable[Tensor] = ()) -> Iterable[int]:
    """Ascend: the loop's body has put gradients; shares stay in [0, 1], multipliers at 0 or above.

    The first step is always given: without it there would be no bound.
    """
    if not leaves:
        yield 0
        return
    optimizer = torch.optim.Adam(leaves, lr=RATE)
    above = {id(leaf) for leaf in positive}
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        yield step
        optimizer.step()
        if time.perf_counter() > until:
            return
        optimizer.param_groups[0]["lr"] *= DECAY
        with torch.no_grad():
            for leaf in leaves:
                leaf.clamp_(0, None if id(leaf) in above else 1)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()


def _leaves(shares: dict[int, Tensor], *, below: int) -> dict[int, Tensor]:
    return {k: _leaf(share) for k, share in shares.items() if k <= below}


def detached(found: Known) -> Known:
    """The same without its gradients."""
    return found.mapped(lambda value: value.detach())
