"""Closer bounds inside of a network: a small branch and bound for the argument of every ReLU whose sign is open.

The triangle between a ReLU's lines is what bounds lose, layer after layer, and no choice of lines makes the next
layer's arguments much closer: signs of ReLUs do. A few dozen parts for each argument take a third off the widths of one
layer, from which those of all later layers begin. So a fully connected network is often verified without any part of
its own region.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.bounds.alpha import first, raised
from caveat.bounds.deeppoly import known, least, signed
from caveat.bounds.interval import Interval
from caveat.bounds.region import Rows
from caveat.bounds.relaxations import RELAXATIONS
from caveat.bounds.values import Known
from caveat.graph import Graph, Relu

__all__ = ["Table", "closer", "given", "joined", "picked", "scored"]

STEPS = 3
"""Of gradient ascent for each part."""
ROWS = 256
"""Parts that are bounded at once, where there are fewer arguments to bound."""
HELD = 1 << 28
"""Bytes that may be held for the gradient."""
COPIES = 40
"""Tensors of the size of all values before a layer that are alive at once."""
Table = dict[int, Tensor]
"""By place, of a ReLU's argument or its result, one row a part."""


def picked(table: Table, rows: Tensor | slice) -> Table:
    """Some rows."""
    return {place: value[rows] for place, value in table.items()}


def joined(*tables: Table) -> Table:
    """The rows of all."""
    return {place: torch.cat([table[place] for table in tables]) for place in tables[0]}


def height(low: Tensor, high: Tensor) -> Tensor:
    """Of the triangle between the lines of a ReLU whose sign is open; -1 of others.

    Formula: -l u / (u - l).
    """
    return torch.where((low < 0) & (high > 0), -low * high / (high - low).clamp_min(1e-300), -1.0)


def scored(graph: Graph, ends: Mapping[int, Interval], weights: Table, count: int) -> Float[Tensor, "r v"]:
    """Of `count` parts the score of every sign that may be given next, in the order of the places of `ends`.

    It is the height of the triangle times the weights, by place of the result, of the ReLUs that take the value; below
    0 where there is no triangle, and in a last column of no sign.
    """
    parts = list[Tensor]()
    for place, (low, high) in ends.items():
        heights = height(low, high)
        weight = sum(one for k, one in weights.items() if graph.nodes[k - 1].arguments[0] == place)
        parts.append(torch.where(heights > 0, (weight + 1e-30) * heights, -1.0).flatten(1))
    device = parts[0].device if parts else None
    return torch.cat([*parts, torch.full((count, 1), -1.0, dtype=torch.float64, device=device)], dim=1)


def given(split: Table, where: Int[Tensor, " r"], sign: float) -> tuple[Table, Int[Tensor, " r"]]:
    """The signs with one more in each row, by its column in `scored`; and the place it is of."""
    signs, start, places = dict[int, Tensor](), 0, torch.zeros_like(where)
    for place, value in split.items():
        flat = value.flatten(1).clone()
        here = ((where >= start) & (where < start + flat.shape[1])).nonzero().squeeze(1)
        flat[here, where[here] - start] = sign
        signs[place], places[here], start = flat.reshape(value.shape), place, start + flat.shape[1]
    return signs, places


def closer(root: Known, weights: Mapping[int, Tensor], *, unit: float, rounds: int, until: float) -> Known:
    """Bounds of one sample's values, never wider than those of `root`.

    Layer by layer, the arguments of ReLUs of open sign are bounded in `rounds + 1` parts each, or more where there are
    few; then all later ones by DeepPoly from there.

    Parameters
    ----------
    weights
        Of every ReLU, by place of its result: those of largest weight times height are first, where time is short.
    until
        A moment of `time.perf_counter`; each layer is given its share of what is left until then.
    """
    layers = [(root.graph.nodes[k - 1].arguments[0], weights[k]) for k in sorted(weights)]
    layers = [(place, weight) for place, weight in layers if place >= min(weights)]  # behind another ReLU
    for k, (place, weight) in enumerate(layers):
        now = time.perf_counter()
        if now > until:
            break
        score = (weight[0] + 1e-30) * height(*(end[0] for end in root.bounds[place]))
        chosen = score.flatten().argsort(descending=True)[: int((score > 0).sum())]
        better = _layer(root, place, chosen, rounds, now + (until - now) / (len(layers) - k))
        start = replace(root, bounds={**root.bounds, place: better})
        with torch.no_grad():
            root = known(root.graph, root.region, unit=unit, start=start, until=until)
    return root


def _layer(root: Known, place: int, chosen: Tensor, rounds: int, until: float) -> tuple[Tensor, Tensor]:
    """Bounds of a layer's chosen arguments, so many at a time as may be held."""
    low, high = (end.flatten().clone() for end in root.bounds[place])
    size = sum(math.prod(root.shape(k)) for k in range(place + 1))
    at_once = max(1, HELD // (COPIES * 8 * size) // 4)
    before = _before(root, place)
    for some in chosen.split(at_once):
        if time.perf_counter() > until:
            break
        low[some], high[some] = _bounded(before, place, some, (low[some], high[some]), rounds, until)
    shape = root.bounds[place][0].shape
    return low.reshape(shape), high.reshape(shape)


def _before(root: Known, place: int) -> Known:
    """What is needed to bound the value of a place."""
    ends = {root.graph.nodes[k - 1].arguments[0] for k in root.relaxed if k <= place}
    bounds, rounding, relaxed = (
        {k: value for k, value in table.items() if k <= place} for table in (root.bounds, root.rounding, root.relaxed)
    )
    return replace(root, bounds={k: bounds[k] for k in ends}, rounding=rounding, relaxed=relaxed)


@dataclass(frozen=True)
class _Leaves:
    """Parts of the region, each with a form that is bounded in it."""

    form: Int[Tensor, " r"]
    values: Float[Tensor, " r"]
    scores: Float[Tensor, "r v"]
    """Of every sign that may be given next; 0 or less of those that may not."""
    split: Table
    slopes: Table
    multipliers: Table

    def of(self, rows: Tensor) -> "_Leaves":
        tables = (picked(table, rows) for table in (self.split, self.slopes, self.multipliers))
        return _Leaves(self.form[rows], self.values[rows], self.scores[rows], *tables)

    def __add__(self, other: "_Leaves") -> "_Leaves":
        return _Leaves(
            torch.cat([self.form, other.form]), torch.cat([self.values, other.values]),
            torch.cat([self.scores, other.scores]), joined(self.split, other.split), joined(self.slopes, other.slopes),
            joined(self.multipliers, other.multipliers),
        )  # fmt: skip


def _bounded(
    root: Known, place: int, which: Tensor, ends: tuple[Tensor, Tensor], rounds: int, until: float
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of some arguments: the least over all parts of one, of which the worst is halved."""
    shape, count = root.shape(place), len(which)
    forms = torch.zeros(2 * count, math.prod(shape), dtype=torch.float64, device=which.device)
    forms[torch.arange(2 * count), which.repeat(2)] = torch.tensor([1.0, -1.0]).repeat_interleave(count).to(forms)
    forms = forms.reshape(-1, *shape)
    relus = [k for k in sorted(root.relaxed) if isinstance(root.graph.nodes[k - 1].operation, Relu)]
    none = {p: torch.zeros_like(root.bounds[p][0]) for p in (root.graph.nodes[k - 1].arguments[0] for k in relus)}
    whole = torch.zeros(2 * count, dtype=torch.long, device=which.device)
    leaves = _Leaves(
        torch.arange(2 * count, device=which.device), torch.cat([ends[0], -ends[1]]), forms.flatten(1)[:, :0],
        picked(none, whole), picked(first(root), whole), picked(none, whole),
    )  # fmt: skip
    leaves = _raised(root, place, forms, relus, leaves, until)
    least = leaves.values
    for _ in range(rounds):
        sure = (least[:count] > 0) | (least[count:] > 0)  # its ReLU has no triangle left
        worst = _worst(leaves, ~sure.repeat(2), max(1, ROWS // max(1, 4 * int((~sure).sum()))))
        if not len(worst) or time.perf_counter() > until:
            break
        halves = _halves(leaves.of(worst))
        kept = torch.ones(len(leaves.form), dtype=torch.bool, device=which.device)
        kept[worst] = False
        leaves = leaves.of(kept) + _raised(root, place, forms, relus, halves, until)
        least = torch.full_like(least, math.inf).scatter_reduce(0, leaves.form, leaves.values, "amin")
    return least[:count], -least[count:]


def _raised(root: Known, place: int, forms: Tensor, relus: list[int], leaves: _Leaves, until: float) -> _Leaves:
    """The leaves' forms bounded in them, never below what they have."""
    own = replace(root.of(torch.zeros_like(leaves.form)), region=root.region)
    for k in relus:
        node = root.graph.nodes[k - 1]
        (argument,) = node.arguments
        own.bounds[argument] = signed(own.bounds[argument], leaves.split[argument])
        own.relaxed[k] = RELAXATIONS[Relu][0](node.operation, own.bounds[argument])
    light, mine = own.light(), forms[leaves.form]
    slopes, multipliers, split = (
        {k: part.float() for k, part in table.items()} for table in (leaves.slopes, leaves.multipliers, leaves.split)
    )
    ascent = raised(
        light, mine.float(), slopes=slopes, multipliers=multipliers, split=split, steps=STEPS, until=until, place=place
    )
    slopes, multipliers = (
        {k: part.double() for k, part in table.items()} for table in (ascent.slopes, ascent.multipliers)
    )
    pull = {k: -part * leaves.split[k] for k, part in multipliers.items()}
    found = least(own, place, mine, Rows.each(len(mine), device=mine.device), slopes=slopes, multipliers=pull)
    values = torch.maximum(found.values, leaves.values)
    ends = {argument: own.bounds[argument] for argument in leaves.split}
    lost = {k: -found.at[k].clamp_max(0) for k in relus if k in found.at}
    scores = scored(root.graph, ends, lost, len(mine))
    return replace(leaves, values=values, scores=scores, slopes=slopes, multipliers=multipliers)


def _worst(leaves: _Leaves, wanted: Tensor, width: int) -> Tensor:
    """Of every form that is wanted the leaves of least value, up to `width`, of those that can be halved."""
    order = leaves.values.argsort(stable=True)
    order = order[leaves.form[order].argsort(stable=True)]
    form = leaves.form[order]
    counts = torch.bincount(form, minlength=len(wanted))
    rank = torch.arange(len(form), device=form.device) - (counts.cumsum(0) - counts)[form]
    return order[(rank < width) & wanted[form] & (leaves.scores[order] > 0).any(1)]


def _halves(leaves: _Leaves) -> _Leaves:
    """Both halves of each, at the sign of highest score."""
    where = leaves.scores.argmax(1)
    low, high = (replace(leaves, split=given(leaves.split, where, sign)[0]) for sign in (-1.0, 1.0))
    return low + high
