"""Branch and bound: where bounds leave a sample open, the sign of a ReLU is taken as given, both ways, and again.

In each part of the region the arguments of later ReLUs are bounded anew: the sign of an early ReLU tightens all that
comes after it. Then the forms are bounded, with Lagrange multipliers for the signs (`alpha.raised`). All forms share
one tree. A part in which no sign is left open is a linear programme, which is solved. So, given time, every sample of a
ReLU network is decided.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caveat.bounds.alpha import Raised, affords_gradient, first, opened, raised
from caveat.bounds.deeppoly import known, least, lower
from caveat.bounds.inner import Table, closer, given, joined, picked, scored
from caveat.bounds.region import Rows
from caveat.bounds.values import Known
from caveat.graph import Relu

__all__ = ["Part", "affordable", "decided"]

BATCH = 32
"""Parts that are bounded at once."""
STEPS = 5
ROUNDS = 32
"""Of the first pass over the bounds inside."""
MORE = 4
"""So many times as many in each that follows."""
SOLVED = 1e-6
"""How far the solver of linear programmes may be wrong: it promises 1e-7."""

Attack = Callable[[Tensor], Tensor | None]
"""From points `(n, ...)` to a counterexample that the model itself confirms, if one of them is near to one."""


@dataclass(frozen=True)
class Part:
    """Parts of one sample's region, each with a form that is above 0 there, and what proves it."""

    matrix: Float[Tensor, "n c"]
    split: Table
    """By place of a ReLU's argument; 1 or -1 where the sign is given."""
    slopes: Table
    multipliers: Table

    def of(self, rows: Tensor | slice) -> "Part":
        """Some of them."""
        tables = (picked(table, rows) for table in (self.split, self.slopes, self.multipliers))
        return Part(self.matrix[rows], *tables)

    def __len__(self) -> int:
        return len(self.matrix)


@dataclass(frozen=True)
class Waiting:
    """Parts of one sample's region that are still to be bounded."""

    left: Bool[Tensor, "n m"]
    """Which of the forms are not proved yet."""
    worst: Float[Tensor, " n"]
    """The least bound of a form in the part that this one is half of."""
    after: Int[Tensor, " n"]
    """The place whose sign was given last."""
    tables: tuple[Table, ...]
    """Signs, slopes, multipliers, and lower and upper bounds of the arguments of what is not linear."""

    def of(self, rows: Tensor | slice) -> "Waiting":
        """Some of them."""
        tables = tuple(picked(table, rows) for table in self.tables)
        return Waiting(self.left[rows], self.worst[rows], self.after[rows], tables)


def together(*some: Waiting) -> Waiting:
    """All of them, the worst first."""
    columns = zip(*((each.left, each.worst, each.after) for each in some), strict=True)
    left, worst, after = (torch.cat(column) for column in columns)
    tables = tuple(joined(*pair) for pair in zip(*(each.tables for each in some), strict=True))
    return Waiting(left, worst, after, tables).of(worst.argsort(stable=True))


def decided(
    root: Known,
    matrix: Float[Tensor, "m c"],
    *,
    unit: float,
    until: float,
    attack: Attack,
    record: Callable[[Part], None] | None = None,
) -> tuple[bool, Tensor | None]:
    """Whether every form is above 0 over the region of one sample, and a counterexample if one was found.

    `root` holds the sample's bounds; `until` is the moment of `time.perf_counter` at which to give up. Of a network
    with ReLUs behind ReLUs the bounds inside are made closer in turn with the search (`inner.closer`), each time with
    more effort, and the search begins again from there.

    `record` is given every part that is proved, with the slopes and multipliers that prove it; then bounds are computed
    anew neither in the parts nor inside, so that these are the whole proof, and much less is decided.

    Source: Bunel et al., Branch and bound for piecewise linear neural network verification, JMLR 2020; multipliers of
    Wang et al., Beta-CROWN, NeurIPS 2021. The score of a ReLU is ours: `_weights`; so are closer bounds inside.
    """
    if record is not None or len(opened(root)) < 2:
        return _searched(root, matrix, unit, until, attack, record)
    rounds, spent = ROUNDS, (until - time.perf_counter()) / 16
    while True:
        proved, broken = _searched(root, matrix, unit, min(until, time.perf_counter() + spent), attack, None)
        begun = time.perf_counter()
        if proved or broken is not None or begun > until:
            return proved, broken
        weights = _weights(root, matrix, unit, refine=True)
        root = closer(root, weights, unit=unit, rounds=rounds, until=begun + 3 / 4 * (until - begun))
        with torch.no_grad():
            matrix = matrix[lower(root, matrix[None])[0] <= 0]
        if not len(matrix):
            return True, None
        now = time.perf_counter()
        last = now + MORE * (now - begun) > until  # another pass would not come to its end
        rounds, spent = MORE * rounds, math.inf if last else (now - begun) / 4


def _searched(
    root: Known,
    matrix: Tensor,
    unit: float,
    until: float,
    attack: Attack,
    record: Callable[[Part], None] | None,
) -> tuple[bool, Tensor | None]:
    """As `decided`, from the bounds of `root` alone."""
    if time.perf_counter() > until:
        return False, None
    waiting, closer = _whole(root, matrix), record is None
    weights = _weights(root, matrix, unit, refine=closer)
    count, begun = 1, time.perf_counter()
    while len(waiting.worst):
        count, begun = affordable(BATCH, count, begun, until), time.perf_counter()
        if begun > until:
            return False, None
        now, waiting = waiting.of(slice(-count, None)), waiting.of(slice(0, max(0, len(waiting.worst) - count)))
        count = len(now.worst)
        own = _bounded(root, now, unit, until, closer=closer)
        row, form = now.left.nonzero(as_tuple=True)
        split, slopes, multipliers = (picked(table, row) for table in now.tables[:3])
        found = raised(
            own.of(row), matrix[form], slopes=slopes, multipliers=multipliers, split=split, steps=STEPS, until=until
        )
        sure = (found.values > 0) | _empty(own)[row]
        if record is not None:
            record(Part(matrix[form], split, found.slopes, found.multipliers).of(sure))
        if bool(sure.all()):
            continue
        if (broken := attack(own.region.of(row[~sure]).minimiser(found.inputs[~sure]))) is not None:
            return False, broken
        open_ones, own = _rest(now, own, found, sure)
        children, leaves = _halved(root, open_ones, weights)
        for leaf, which in (open_ones.left & leaves[:, None]).nonzero().tolist():
            if time.perf_counter() > until:
                return False, None
            one = Part(matrix[which, None], *(picked(table, slice(leaf, leaf + 1)) for table in open_ones.tables[:3]))
            answer, point, solved = _solved(own.of(torch.tensor([leaf])), one)
            if answer and record is not None:
                record(solved)
            if not answer:
                return False, None if point is None else attack(point)
        waiting = together(waiting, children)
    return True, None


def affordable(most: int, count: int, begun: float, until: float) -> int:
    """How many parts to bound at once, of at most `most`: fewer towards the end, by the time that `count` took from
    `begun` on.
    """
    now = time.perf_counter()
    left, each = until - now, (now - begun) / count
    return most if each * most <= left else max(1, int(left / max(each, 1e-9)))


def _rest(now: Waiting, own: Known, found: Raised, sure: Tensor) -> tuple[Waiting, Known]:
    """Parts with forms that are not sure, with the bounds found, and slopes and multipliers of the worst form."""
    where = now.left.nonzero(as_tuple=True)
    values = torch.full_like(now.left, torch.inf, dtype=torch.float64)
    values = values.index_put(where, torch.where(sure, torch.inf, found.values))
    number = torch.zeros_like(now.left, dtype=torch.long).index_put(where, torch.arange(len(sure), device=sure.device))
    worst, form = values.min(1)
    alive = (worst < torch.inf).nonzero().squeeze(1)
    best = number[alive, form[alive]]
    low, high = ({place: own.bounds[place][side][alive] for place in now.tables[3]} for side in (0, 1))
    tables = (picked(now.tables[0], alive), picked(found.slopes, best), picked(found.multipliers, best), low, high)
    return Waiting(values[alive] < torch.inf, worst[alive], now.after[alive], tables), own.of(alive)


def _whole(root: Known, matrix: Tensor) -> Waiting:
    """The whole region, with DeepPoly's slopes."""
    shares = first(root)
    none = {root.graph.nodes[k - 1].arguments[0]: torch.zeros_like(share) for k, share in shares.items()}
    ends = {root.graph.nodes[k - 1].arguments[0] for k in root.relaxed}
    low, high = ({place: root.bounds[place][side] for place in ends} for side in (0, 1))
    left = torch.ones(1, len(matrix), dtype=torch.bool, device=matrix.device)
    nowhere = torch.full((1,), len(root.graph.nodes) + 1, device=matrix.device)
    return Waiting(left, matrix.new_zeros(1), nowhere, (none, shares, none, low, high))


def _bounded(root: Known, now: Waiting, unit: float, until: float, *, closer: bool) -> Known:
    """Bounds of all values in each part; those after the place of its last sign by back-substitution if `closer`."""
    split, _, _, low, high = now.tables
    region = root.region.of(torch.zeros_like(now.after))
    start = Known(root.graph, region, {place: (low[place], high[place]) for place in low})
    with torch.no_grad():
        return known(
            root.graph, region, unit=unit, refine=closer, split=split, start=start, after=now.after, until=until
        )


def _empty(own: Known) -> Tensor:
    """Parts in which the signs contradict each other."""
    none = [(low > high).flatten(1).any(1) for low, high in own.bounds.values()]
    return torch.stack(none).any(0)


def _weights(root: Known, matrix: Tensor, unit: float, *, refine: bool) -> Table:
    """For every ReLU, by place of its result, how much the forms' bounds rise with its upper line, with a gradient.

    The line bounds the forms, and bounds the arguments of all later ReLUs, whose lines bound the forms; of a large
    network, the first alone.
    """
    refine = refine and affords_gradient(root)
    with torch.enable_grad():
        lift = {k: torch.zeros_like(mask, dtype=torch.float64).requires_grad_() for k, mask in opened(root).items()}
        now = known(
            root.graph, root.region, unit=unit, refine=refine, start=None if refine else root, lift=lift, memory=1 << 62
        )  # fmt: skip
        rows = Rows.each(len(matrix), device=matrix.device)
        wide = now.of(torch.zeros_like(rows.sample))
        bound = least(wide, root.graph.output, matrix, rows).values.sum()
        if not bound.requires_grad:
            return {k: torch.zeros_like(zero) for k, zero in lift.items()}
        found = torch.autograd.grad(bound, list(lift.values()), allow_unused=True, materialize_grads=True)
    return {k: -gradient.clamp_max(0) for k, gradient in zip(lift, found, strict=True)}


def _halved(root: Known, kept: Waiting, weights: Table) -> tuple[Waiting, Tensor]:
    """The two halves of each part, at the ReLU of highest score; and which parts have no sign left open.

    Formula: score = w u (-l) / (u - l), w of `_weights`: the height of the triangle, times what it matters.
    """
    split, _, _, lows, highs = kept.tables
    ends = {place: (lows[place], highs[place]) for place in split}
    value, where = scored(root.graph, ends, weights, len(kept.worst)).max(1)
    rows = (value > 0).nonzero().squeeze(1)
    mine, halves = kept.of(rows), list[Waiting]()
    for sign in (-1.0, 1.0):
        signs, after = given(mine.tables[0], where[rows], sign)
        halves.append(replace(mine, after=after, tables=(signs, *mine.tables[1:])))
    return together(*halves), ~(value > 0)  # also where scores are no numbers


def _solved(own: Known, part: Part) -> tuple[bool, Tensor | None, Part]:
    """Whether the form is above 0 in a part without open signs, by its linear programme; else where it is least.

    Also the part with the multipliers that prove it: the programme's dual values.
    """
    kinds = {k: own.graph.nodes[k - 1].operation for k in own.relaxed}
    if own.region.norm != math.inf or not all(isinstance(op, Relu) for op in kinds.values()):
        return False, None, part  # not linear, even so
    if not all(bool(end.isfinite().all()) for ends in own.bounds.values() for end in ends):
        return False, None, part
    from scipy.optimize import linprog  # comes with scikit-learn

    one = Rows.each(1)
    goal = least(own, own.graph.output, part.matrix, one)
    constant = float(goal.values - own.region.least(goal.inputs, one))
    sides, limits = list[Tensor](), list[float]()
    for place, signs in part.split.items():
        for value in signs.flatten().nonzero().flatten().tolist():
            row = torch.zeros_like(signs).flatten()
            row[value] = -float(signs.flatten()[value])
            form = least(own, place, row.reshape(signs.shape), one)
            sides.append(form.inputs.flatten())
            limits.append(-float(form.values - own.region.least(form.inputs, one)))
    matrix = torch.stack(sides).numpy() if sides else None
    box = torch.stack([own.region.low.flatten(), own.region.high.flatten()], dim=1).numpy()
    answer = linprog(goal.inputs.flatten().numpy(), A_ub=matrix, b_ub=limits or None, bounds=box, method="highs")
    if answer.status == 2 and matrix is not None:  # empty: no point comes nearer to all signs than some distance
        apart = np.append(np.zeros(matrix.shape[1]), 1.0)
        sides_apart = np.append(matrix, -np.ones((len(matrix), 1)), axis=1)
        nearest = linprog(apart, A_ub=sides_apart, b_ub=limits, bounds=[*map(tuple, box), (None, None)], method="highs")
        far = 2 * (1 + abs(float(goal.values))) / max(float(nearest.fun), 1e-300) if nearest.status == 0 else 0.0
        return True, None, _with_multipliers(part, -far * nearest.ineqlin.marginals)
    if answer.status:
        return False, None, part
    if answer.fun + constant > SOLVED * (1 + abs(constant)):
        return True, None, _with_multipliers(part, -answer.ineqlin.marginals)
    return False, torch.from_numpy(answer.x).reshape(own.region.low.shape), part


def _with_multipliers(part: Part, duals: np.ndarray) -> Part:
    """One of each sign that is given, in the order of `_solved`."""
    left, found = torch.as_tensor(duals, dtype=torch.float64).clamp_min(0), dict[int, Tensor]()
    for place, signs in part.split.items():
        given = signs != 0
        mine, left = left.split([int(given.sum()), len(left) - int(given.sum())])
        found[place] = torch.zeros_like(signs).masked_scatter(given, mine)
    return Part(part.matrix, part.split, part.slopes, found)
