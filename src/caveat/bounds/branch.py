"""Branch and bound: where bounds leave a sample open, the sign of a ReLU is taken as given, both ways, and again.

Every part is bounded by itself, with Lagrange multipliers for the signs (`alpha.raised`). A part in which no sign is
left open is a linear programme, which is solved. So, given time, every sample of a ReLU network is decided.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caveat.bounds.alpha import Raised, first, opened, raised
from caveat.bounds.deeppoly import Known, known, least
from caveat.bounds.region import Rows
from caveat.graph import Relu

__all__ = ["Part", "decided"]

BATCH = 64
"""Parts that are bounded at once."""
STEPS = 10
SOLVED = 1e-6
"""How far the solver of linear programmes may be wrong: it promises 1e-7."""

Attack = Callable[[Tensor], Tensor | None]
"""From points `(n, ...)` to a counterexample that the model itself confirms, if one of them is near to one."""


@dataclass(frozen=True)
class Part:
    """Some of the parts of one sample's region, each with the form that is to be bounded there."""

    matrix: Float[Tensor, "n c"]
    split: dict[int, Tensor]
    """By place of a ReLU's argument; 1 or -1 where the sign is given."""
    slopes: dict[int, Tensor]
    multipliers: dict[int, Tensor]

    def of(self, rows: Tensor | slice) -> "Part":
        """Some of them."""
        tables = (
            {place: value[rows] for place, value in table.items()}
            for table in (self.split, self.slopes, self.multipliers)
        )
        return Part(self.matrix[rows], *tables)

    def __len__(self) -> int:
        return len(self.matrix)


def together(a: Part, b: Part) -> Part:
    """Both."""
    pairs = zip((a.split, a.slopes, a.multipliers), (b.split, b.slopes, b.multipliers), strict=True)
    return Part(torch.cat([a.matrix, b.matrix]), *({k: torch.cat([x[k], y[k]]) for k in x} for x, y in pairs))


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

    `root` holds the sample's bounds; `until` is the moment of `time.perf_counter` at which to give up. `record` is
    given every part that is proved, with the slopes and multipliers that prove it.

    Source: Bunel et al., Branch and bound for piecewise linear neural network verification, JMLR 2020 (the score of a
    ReLU is that of section 5.3, without its look at the layer before).
    """
    waiting, sure = _whole(root, matrix), True
    while len(waiting):
        if time.perf_counter() > until:
            return False, None
        now, waiting = waiting.of(slice(-BATCH, None)), waiting.of(slice(0, max(0, len(waiting) - BATCH)))
        own = known(
            root.graph, root.region.of(torch.zeros(len(now), dtype=torch.long)), unit=unit, refine=False,
            split=now.split, start=root.of(torch.zeros(len(now), dtype=torch.long)),
        )  # fmt: skip
        found = raised(own, now.matrix, slopes=now.slopes, multipliers=now.multipliers, split=now.split, steps=STEPS)
        alive = (found.values <= 0) & ~_empty(own)
        if record is not None:
            record(Part(now.matrix, now.split, found.slopes, found.multipliers).of(~alive))
        if not bool(alive.any()):
            continue
        if (broken := attack(own.region.minimiser(found.inputs)[alive])) is not None:
            return False, broken
        children, leaves = _halved(own, now, found, alive)
        for leaf in leaves:
            answer, point, solved = _solved(own.of(torch.tensor([leaf])), now.of(slice(leaf, leaf + 1)))
            if answer and record is not None:
                record(solved)
            if not answer:
                if point is not None and (broken := attack(point)) is not None:
                    return False, broken
                sure = False
        if not sure:
            return False, None
        waiting = together(waiting, children)
    return sure, None


def _whole(root: Known, matrix: Tensor) -> Part:
    shares = first(root)
    places = {k: root.graph.nodes[k - 1].arguments[0] for k in shares}
    empty = {places[k]: torch.zeros_like(share).expand(len(matrix), *share.shape[1:]) for k, share in shares.items()}
    return Part(
        matrix,
        dict(empty),
        {k: share.expand(len(matrix), *share.shape[1:]) for k, share in shares.items()},
        dict(empty),
    )


def _empty(own: Known) -> Tensor:
    """Parts in which the signs contradict each other."""
    none = [(low > high).flatten(1).any(1) for low, high in own.bounds.values()]
    return torch.stack(none).any(0)


def _scores(own: Known, at: dict[int, Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """For every ReLU whose sign is open what its relaxation may cost the bound; and where each begins and ends.

    Formula: |A| u (-l) / (u - l), A the coefficient that its result has in the bound: the height of the triangle.
    """
    parts, ends = list[Tensor](), list[tuple[int, int]]()
    for k, mask in opened(own).items():
        place = own.graph.nodes[k - 1].arguments[0]
        low, high = own.bounds[place]
        height = torch.where(mask, -low * high / (high - low).clamp_min(1e-300), 0)
        weight = at[k].abs() if k in at else torch.zeros_like(height)
        parts.append(torch.where(mask, weight * height + 1e-30, -1.0).flatten(1))
        ends.append((place, parts[-1].shape[1]))
    nothing = torch.full((len(own.region.low), 1), -1.0, dtype=torch.float64, device=own.region.low.device)
    return torch.cat([*parts, nothing], dim=1), ends  # a network may have no ReLU


def _halved(own: Known, now: Part, found: Raised, alive: Tensor) -> tuple[Part, list[int]]:
    """The two halves of each part that is left, and the parts that have no sign left open."""
    scores, ends = _scores(own, found.at)
    value, where = scores.max(1)
    leaves = (alive & (value <= 0)).nonzero().squeeze(1).tolist()
    rows = (alive & (value > 0)).nonzero().squeeze(1)
    kept = Part(now.matrix, now.split, found.slopes, found.multipliers).of(rows)
    where, halves = where[rows], list[Part]()
    for sign in (-1.0, 1.0):
        split, start = dict[int, Tensor](), 0
        for place, count in ends:
            flat = kept.split[place].flatten(1).clone()
            mine = ((where >= start) & (where < start + count)).nonzero().squeeze(1)
            flat[mine, where[mine] - start] = sign
            split[place] = flat.reshape(kept.split[place].shape)
            start += count
        halves.append(Part(kept.matrix, split, kept.slopes, kept.multipliers))
    return together(*halves), leaves


def _solved(own: Known, part: Part) -> tuple[bool, Tensor | None, Part]:
    """Whether the form is above 0 in a part without open signs, by its linear programme; else where it is least.

    Also the part with the multipliers that prove it: the programme's dual values.
    """
    kinds = {k: own.graph.nodes[k - 1].operation for k in own.relaxed}
    if own.region.norm != math.inf or not all(isinstance(op, Relu) for op in kinds.values()):
        return False, None, part  # not linear, even so
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
