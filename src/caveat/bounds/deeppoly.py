"""DeepPoly, also called CROWN: linear bounds of every value in terms of the inputs, by back-substitution.

The interval of every value is found in order; before an operation that is not linear its arguments are bounded again,
by carrying their own coefficients back to the inputs through what is known of everything before.

Floating point: every value stands for the one that the network computes in its own type. Where an operation rounds,
`interval.roundoff` says by how much, and back-substitution pays that for every coefficient that it carries through. So
the outputs of a float32 network do not leave their bounds, in whatever order its sums are taken. Bounds are computed in
float64, but for the coefficients of arguments on the way where the network has no more than float32: `single` pays for
their rounding in the same way.
"""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.bounds.adjoint import ADJOINT
from caveat.bounds.interval import Interval, propagated, roundoff, unit_in
from caveat.bounds.region import Between, Region, Rows
from caveat.bounds.relaxations import RELAXATIONS, Lines, Relaxed, bent
from caveat.bounds.single import begun, unit_of_products
from caveat.bounds.values import Known, Slopes, Split
from caveat.errors import CaveatWarning, ModelError
from caveat.graph import AvgPool, Conv, Graph, Linear, Mean, Relu, Sum

__all__ = ["MEMORY", "Least", "known", "least", "lower", "signed", "unit_of"]

MEMORY = 1 << 23
"""Bytes that coefficients may take at once, unless told otherwise: 8 MiB, which caches and the allocator help with."""
COPIES = 6
"""Tensors of the size of the coefficients that are alive at once."""


@dataclass(frozen=True)
class Least:
    """Lower bounds of linear forms, and how they come about."""

    values: Float[Tensor, " r"]
    inputs: Float[Tensor, "r ..."]
    """Coefficients of the inputs."""
    at: dict[int, Tensor]
    """By place of the result of an operation that is not linear, the coefficients there."""


def unit_of(model: nn.Module, inputs: Tensor) -> float:
    """Half of the largest epsilon of the types in which a model computes; of float32, with what PyTorch makes of it.

    It warns where that is less.
    """
    types = {inputs.dtype, *(value.dtype for value in (*model.parameters(), *model.buffers()))}
    unit = max(unit_in(kind) for kind in types if kind.is_floating_point)
    if torch.float32 not in types or (products := unit_of_products(inputs.device)) <= unit:
        return unit
    warnings.warn(
        "model: PyTorch may multiply with fewer digits than float32 has (TF32, bfloat16); bounds pay for that, and "
        "prove little. Switch it off first: torch.set_float32_matmul_precision('highest') and "
        "torch.backends.cudnn.allow_tf32 = False",
        CaveatWarning,
        stacklevel=3,
    )
    return products


def known(  # noqa: PLR0913 -- each is one independent choice
    graph: Graph,
    region: Region | Between,
    *,
    unit: float,
    refine: bool = True,
    memory: int = MEMORY,
    slopes: Mapping[int, Slopes] | None = None,
    split: Split | None = None,
    start: Known | None = None,
    after: Tensor | None = None,
    lift: Mapping[int, Tensor] | None = None,
    until: float = math.inf,
) -> Known:
    """Bounds of every value of the network over the region.

    Parameters
    ----------
    refine
        Bound the arguments of what is not linear by back-substitution; else by intervals alone.
    slopes
        Of the lower lines used to bound each argument, by its place.
    split
        Signs that are taken as given.
    start
        Bounds that are known already, and are only tightened.
    after
        `(n,)`; up to this place those of `start` are as good, and nothing is carried back.
    lift
        Of ReLUs, what is added to the upper lines, by place of the result: 0, for the gradient.
    until
        A moment of `time.perf_counter`, after which nothing more is carried back: what is left has wider bounds.

    Raises
    ------
    ModelError
        If an operation has no relaxation.
    """
    found = Known(graph, region, {0: (region.low, region.high)})
    plain = refine and not slopes and not lift
    single = begun(graph, region, unit) if plain else None
    carried = single.known if single else found
    for k, node in enumerate(graph.nodes):
        values = [found.bounds[place] for place in node.arguments]
        relax, _ = RELAXATIONS.get(type(node.operation), (None, ""))
        if relax is not None:
            (place,) = node.arguments
            mask = bent(node.operation, values[0])
            if after is not None:
                mask = mask & (after < place).reshape(-1, *[1] * (mask.ndim - 1))
            if refine and not _exact(found, k):
                better = _refined(carried, place, mask, memory, (slopes or {}).get(place), until)
                found.bounds[place] = _both(found.bounds[place], better)
            if start is not None:
                found.bounds[place] = _both(found.bounds[place], start.bounds[place])
            if split and place in split:
                found.bounds[place] = signed(found.bounds[place], split[place])
            values = [found.bounds[place]]
            found.relaxed[k + 1] = _lifted(relax(node.operation, values[0]), (lift or {}).get(k + 1))
        elif type(node.operation) not in ADJOINT:
            raise ModelError(f"model: no bounds for {type(node.operation).__name__} (in {node.where})")
        rounding = roundoff(node.operation, unit, *values)
        if rounding is not None:
            found.rounding[k + 1] = rounding
        found.bounds[k + 1] = propagated(node.operation, rounding, *values)
        if single is not None:
            single.follow(found, k)
    return found


def least(
    found: Known,
    place: int,
    coefficients: Float[Tensor, "r ..."],
    rows: Rows,
    *,
    slopes: Slopes | None = None,
    multipliers: Mapping[int, Tensor] | None = None,
    early: bool = False,
    full: bool = True,
) -> Least:
    """Lower bounds of `coefficients . value` at a place, by back-substitution to the inputs.

    Parameters
    ----------
    slopes
        Other lower lines of ReLUs.
    multipliers
        What is added to the coefficients of a ReLU's arguments: Lagrange multipliers of their signs.
    early
        Also try the intervals of what comes before the last operation that is not linear, and take the better.
    full
        Go on to the inputs; else `early` alone.
    """
    begun = _begun(found, place, coefficients)
    return _least(found, begun, rows, slopes=slopes, multipliers=multipliers, early=early, full=full)


@dataclass(frozen=True)
class _Begun:
    """Rows of coefficients carried back through linear operations alone: so far they are the same for every sample."""

    waiting: dict[int, Tensor]
    """By place, what is left to carry back."""
    constant: Float[Tensor, " r"]
    passed: dict[int, Tensor]
    """By place of the results that rounding is paid for, the coefficients there."""

    def of(self, rows: Tensor, signs: Tensor) -> "_Begun":
        """Some of the rows, also several times, times a sign."""
        waiting = {k: part[rows] * signs.reshape(-1, *[1] * (part.ndim - 1)) for k, part in self.waiting.items()}
        passed = {k: part[rows] for k, part in self.passed.items()}
        return _Begun(waiting, self.constant[rows] * signs, passed)


def _begun(found: Known, place: int, coefficients: Tensor) -> _Begun:
    """Back to the last operation that is not linear, or to the inputs."""
    waiting, constant = {place: coefficients}, coefficients.new_zeros(len(coefficients), dtype=torch.float64)
    passed: dict[int, Tensor] = {}
    for k in range(place, 0, -1):
        if k in found.relaxed and k in waiting:
            break
        if k in waiting:
            mine = waiting.pop(k)
            if k in found.rounding or k in found.lost:
                passed[k] = mine
            constant = constant + _through(found, k, mine, waiting)
    return _Begun(waiting, constant, passed)


def _through(found: Known, k: int, mine: Tensor, waiting: dict[int, Tensor]) -> Tensor | float:
    """Carry coefficients of a linear operation's result back to its arguments; what its constants add."""
    node = found.graph.nodes[k - 1]
    parts, more = ADJOINT[type(node.operation)](node.operation, mine, [found.shape(place) for place in node.arguments])
    for argument, part in zip(node.arguments, parts, strict=True):
        waiting[argument] = waiting[argument] + part if argument in waiting else part
    return more


def _least(
    found: Known,
    begun: _Begun,
    rows: Rows,
    *,
    slopes: Slopes | None = None,
    multipliers: Mapping[int, Tensor] | None = None,
    early: bool = False,
    full: bool = True,
) -> Least:
    """As `least`, from where the linear operations after the last one that is not have been passed."""
    waiting, constant = dict(begun.waiting), begun.constant
    for k, mine in begun.passed.items():
        constant = constant - _due(found, k, mine, rows)
    at: dict[int, Tensor] = {}
    early_values: Tensor | None = None
    for k in range(max(waiting, default=0), 0, -1):
        if k not in waiting:
            continue
        if early and early_values is None and k in found.relaxed:
            early_values = constant + _of_intervals(found, waiting, rows)
            if not full:
                return Least(_sound(early_values), waiting[k], at)
        mine = waiting.pop(k)
        constant = constant - _due(found, k, mine, rows)
        if k not in found.relaxed:
            constant = constant + _through(found, k, mine, waiting)
            continue
        at[k] = mine
        (argument,) = found.graph.nodes[k - 1].arguments
        part, more = _with_slope(found, k, slopes).back(mine, rows, found.shape(argument))
        if multipliers and argument in multipliers:
            part = part + multipliers[argument]
        constant = constant + more
        waiting[argument] = waiting[argument] + part if argument in waiting else part
    inputs = waiting.get(0)
    if inputs is None:
        inputs = constant.new_zeros(len(rows.sample), *found.graph.input_shape)
    constant = constant - _due(found, 0, inputs, rows)
    values = constant + found.region.least(inputs, rows)
    values = _sound(values)
    return Least(values if early_values is None else torch.maximum(values, _sound(early_values)), inputs, at)


def _sound(values: Tensor) -> Tensor:
    """No bound where coefficients overflow, or values may leave the network's type."""
    return values.nan_to_num(-math.inf, -math.inf, -math.inf)


def _due(found: Known, k: int, mine: Tensor, rows: Rows) -> Tensor | float:
    """What is paid for rounding at the result of an operation, by the coefficients there."""
    due = rows.dot(mine.abs(), found.rounding[k]) if k in found.rounding else 0.0
    return due + rows.pick(found.lost[k]) if k in found.lost else due


def _exact(found: Known, k: int) -> bool:
    """Whether intervals are as good: one sum at most lies between a box and the k-th operation."""
    mixing = [
        node for node in found.graph.nodes[:k] if isinstance(node.operation, AvgPool | Conv | Linear | Mean | Sum)
    ]
    return found.region.norm == math.inf and not found.relaxed and len(mixing) <= 1


def _of_intervals(found: Known, waiting: Mapping[int, Tensor], rows: Rows) -> Tensor:
    total = next(iter(waiting.values())).new_zeros(len(rows.sample))
    for place, coefficients in waiting.items():
        low, high = found.bounds[place]
        total = total + rows.dot(coefficients, (low + high) / 2) - rows.dot(coefficients.abs(), (high - low) / 2)
    return total


def lower(
    found: Known, matrix: Float[Tensor, "n m c"], *, full: bool = True, memory: int = MEMORY
) -> Float[Tensor, "n m"]:
    """Lower bounds of linear forms of the logits; by back-substitution to the inputs if `full`, else by intervals.

    With intervals too the last linear layers are one with the form.
    """
    n, m, _ = matrix.shape
    rows = Rows.each(n, m, device=matrix.device)
    largest = max(torch.Size(found.shape(k)).numel() for k in range(len(found.graph.nodes) + 1))
    chunk = max(1, memory // (COPIES * largest * 8))
    parts: list[Tensor] = []
    for part, sample in zip(matrix.flatten(0, 1).split(chunk), rows.sample.split(chunk), strict=True):
        bound = least(found, found.graph.output, part, Rows(sample), early=True, full=full)
        parts.append(bound.values)
    return torch.cat(parts).reshape(n, m)


def _with_slope(found: Known, place: int, slopes: Slopes | None) -> Relaxed:
    """The relaxation with another lower line where the sign is open and the function is convex: of a concave one, a
    leaky ReLU of slope above 1, the chord alone lies below.
    """
    relaxed, node = found.relaxed[place], found.graph.nodes[place - 1]
    if slopes is None or place not in slopes or not isinstance(relaxed, Lines) or not isinstance(node.operation, Relu):
        return relaxed
    low, high = found.bounds[node.arguments[0]]
    below = torch.as_tensor(node.operation.slope, dtype=low.dtype, device=low.device)
    other = below + slopes[place] * (1 - below)
    return replace(relaxed, low_slope=torch.where((low < 0) & (high > 0) & (below <= 1), other, relaxed.low_slope))


def _lifted(relaxed: Relaxed, more: Tensor | None) -> Relaxed:
    if more is None or not isinstance(relaxed, Lines) or relaxed.high_offset is None:
        return relaxed
    return replace(relaxed, high_offset=relaxed.high_offset + more)


def _refined(found: Known, place: int, mask: Tensor, memory: int, slopes: Slopes | None, until: float) -> Interval:
    """Bounds by back-substitution where the mask says so; elsewhere, and where time is up, infinite ones."""
    shape, dtype = found.shape(place), found.dtype
    low, high = (torch.full_like(mask, end, dtype=torch.float64).flatten(1) for end in (-math.inf, math.inf))
    ends: list[Interval] = []
    sample, value = mask.flatten(1).nonzero(as_tuple=True)
    largest = max(torch.Size(found.shape(k)).numel() for k in range(place + 1)) * dtype.itemsize
    chunk = max(1, memory // (2 * COPIES * largest))
    different, row = value.unique(return_inverse=True)
    shared = None  # what is the same for every sample, once for all of them, where it is not too large
    if 2 * len(different) * largest <= memory:
        shared = _begun(found, place, _units(different, shape, dtype))
    for samples, values in zip(sample.split(chunk), (value if shared is None else row).split(chunk), strict=True):
        if time.perf_counter() > until:
            break
        begun = shared or _begun(found, place, _units(values, shape, dtype))
        each = torch.arange(len(values), device=low.device) if shared is None else values
        signs = torch.tensor([1.0, -1.0], dtype=dtype, device=low.device).repeat(len(samples))
        both = begun.of(each.repeat_interleave(2), signs)
        bound = _least(found, both, Rows(samples.repeat_interleave(2)), slopes=slopes).values
        ends.append((bound[::2], -bound[1::2]))
    if ends:
        new_low, new_high = (torch.cat(part) for part in zip(*ends, strict=True))
        where = (sample[: len(new_low)], value[: len(new_low)])
        low, high = low.index_put(where, new_low), high.index_put(where, new_high)
    return low.reshape(-1, *shape), high.reshape(-1, *shape)


def _units(values: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Coefficients that are 1 at one value each."""
    units = torch.zeros(len(values), math.prod(shape), dtype=dtype, device=values.device)
    return units.scatter_(1, values[:, None], 1.0).reshape(-1, *shape)


def _both(a: Interval, b: Interval) -> Interval:
    return torch.maximum(a[0], b[0]), torch.minimum(a[1], b[1])


def signed(x: Interval, sign: Tensor) -> Interval:
    """What is left where signs are given: 1, -1, or 0 for none."""
    return torch.where(sign > 0, x[0].clamp_min(0), x[0]), torch.where(sign < 0, x[1].clamp_max(0), x[1])
