"""Certificates against transformations of pictures: whether a rotation, shift, ... within its range changes the answer.

The ranges are one box of parameters. A box is bounded whole; where that proves nothing it is halved, until all parts
are proved, a transformed picture is answered otherwise, or there would be too many parts.
"""

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.network import broken, checked
from caveat.attacks.transformation import AXES, TURN, Transformation, applied
from caveat.bounds.branch import affordable
from caveat.bounds.certify import VERDICTS, Certificate
from caveat.bounds.deeppoly import MEMORY, known, lower, unit_of
from caveat.bounds.outputs import check_memory, forms, traced
from caveat.bounds.pixels import Boxes, between, samples_of, whole
from caveat.errors import OptionError, known_name
from caveat.graph import Graph
from caveat.types import Labels

__all__ = ["CELLS", "GEOMETRIC", "certify_transformed"]

GEOMETRIC = ("interval", "crown_ibp", "deeppoly")
CELLS = 1000
REACH = 1.0
"""Pixels that a parameter may move any place either way within one of the parts that are looked at first."""
TRIES = 50
COPIES = 150
"""Numbers for each pixel of a box that are alive at once, besides its samples."""
MANY = 64
"""Boxes that are bounded at once, at most."""


def certify_transformed(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    labels: Labels,
    transformation: Transformation,
    *,
    method: Literal["interval", "crown_ibp", "deeppoly"] = "deeppoly",
    cells: int = CELLS,
    parts: Sequence[int] | None = None,
    seconds: float | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    graph: Graph | None = None,
) -> Certificate:
    """Whether the network answers `labels` on every picture that the transformation makes of each sample.

    Every pixel is bounded by two linear functions of the parameters (DeepG), and back-substitution carries the margins
    to them. `crown_ibp` takes the intervals of hidden values from interval arithmetic: for networks that were trained
    with intervals. `deeppoly` carries those back too where that proves nothing, which takes 20 times as long.
    `interval` has no lines at all. Some transformed pictures are tried on the model itself first, and the middle of
    every part that is not proved.

    Parameters
    ----------
    cells
        How many parts of the parameters' ranges may be bounded for each sample; more of them prove more.
    parts
        In how many parts the range of each of `transformation.names` is split at first; without, in so many that a
        part moves no place of the picture by more than a pixel.
    seconds
        For each sample on the average: when as many times the samples have passed, no further parts are bounded, and
        what is not decided stays open. No limit without.
    seed
        Of the transformed pictures that are tried.
    memory
        Bytes that may be taken at once.
    graph
        The model's `graph.trace`, where it is known already.

    Raises
    ------
    ModelError, DataError
        As `bounds.certify`; if inputs are no pictures, or contrast changes ones outside of [0, 1].
    OptionError
        If no parameter has a range, a method is unknown, a number is below 1, or `seconds` not above 0.

    Formula: verified if min over k in K of z_y(T_k x) - z_j(T_k x) is above 0 for every j != y, K the ranges.

    Source: Balunovic et al., Certifying geometric robustness of neural networks, NeurIPS 2019; `crown_ibp`: Zhang et
    al., ICLR 2020 (arXiv 1906.06316).

    Example
    -------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> weights = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])  # more of the upper half, or of the lower
    >>> _ = net[1].load_state_dict({"weight": weights, "bias": torch.zeros(2)})
    >>> picture = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    >>> for degrees in (40, 80, 100):
    ...     found = certify_transformed(net.eval(), picture, torch.tensor([0]), Transformation(rotate=degrees))
    ...     print(VERDICTS[int(found.verdict)])
    verified
    verified
    falsified
    """
    known_name("method", method, GEOMETRIC)
    check_memory(memory)
    if seconds is not None and not seconds > 0:
        raise OptionError(f"seconds: expected a number above 0, got {seconds}")
    labels = checked(model, inputs, labels)
    axes, split = _plan(inputs, transformation, cells, parts)
    if not len(inputs):
        return Certificate(torch.zeros_like(labels), labels.double(), inputs)
    state = _State(model, inputs, labels, transformation, traced(model, inputs, graph), method, memory)
    until = math.inf if seconds is None else time.perf_counter() + seconds * len(inputs)
    with torch.no_grad():
        state.attack(torch.Generator().manual_seed(seed))
        state.work(_first(inputs, transformation, axes, split), cells, until)
    return Certificate(state.verdict, state.margin, state.counterexamples)


def _plan(
    inputs: Tensor, transformation: Transformation, cells: int, parts: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes whose range is not 0, and the parts of each at first.

    Raises
    ------
    OptionError, DataError
        As `certify_transformed`.
    """
    transformation.check(inputs)
    axes = tuple(AXES.index(name) for name in transformation.names)
    if parts is None:
        far = math.hypot(*inputs.shape[2:]) / 2
        moved = {0: TURN * far, 1: 1.0, 2: 1.0, 3: far, 4: far, 5: 0.0, 6: 0.0}
        width = {k: (transformation.high[k] - transformation.low[k]) / 2 for k in axes}
        parts = [max(1, math.ceil(moved[k] * width[k] / REACH)) for k in axes]
    if len(parts) != len(axes) or min(parts) < 1:
        raise OptionError(
            f"parts: expected a number of at least 1 for each of {', '.join(transformation.names)}, got {list(parts)}"
        )
    if cells < math.prod(parts):
        raise OptionError(
            f"cells: expected at least the {math.prod(parts)} parts that are looked at first, got {cells}"
        )
    return axes, tuple(parts)


def _first(inputs: Tensor, transformation: Transformation, axes: tuple[int, ...], split: tuple[int, ...]) -> Boxes:
    """Equal parts of the ranges, for every picture."""
    low, high = (
        torch.tensor([end[k] for k in axes], dtype=torch.float64) for end in (transformation.low, transformation.high)
    )
    places = torch.tensor(list(itertools.product(*map(range, split))), dtype=torch.float64)
    half = (high - low) / 2 / torch.tensor(split, dtype=torch.float64)
    n, m = len(inputs), len(places)
    centre = (low + (2 * places + 1) * half).repeat(n, 1)
    wider = half * (1 + 1e-12)  # neighbours overlap
    return Boxes(
        axes, torch.arange(n).repeat_interleave(m).to(inputs.device),
        centre.to(inputs.device), wider.repeat(n * m, 1).to(inputs.device),
    )  # fmt: skip


@dataclass
class _State:
    """What is decided so far."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    transformation: Transformation
    graph: Graph
    method: str
    memory: int

    def __post_init__(self) -> None:
        n = len(self.inputs)
        self.verdict = torch.zeros_like(self.labels)
        self.margin = torch.full((n,), torch.inf, dtype=torch.float64, device=self.inputs.device)
        self.counterexamples = self.inputs.clone()
        self.unit = unit_of(self.model, self.inputs)

    def attack(self, generator: torch.Generator) -> None:
        """The pictures as they are, if that is one of the transformations, and some at random."""
        rows = torch.arange(len(self.inputs), device=self.inputs.device)
        if self.transformation.holds_still:
            self.tried(rows, None)
        for _ in range(TRIES):
            rows = (self.verdict == 0).nonzero().flatten()
            if len(rows):
                self.tried(rows, self.transformation.drawn(len(rows), generator).to(self.inputs.device))

    def tried(self, rows: Tensor, parameters: Tensor | None) -> None:
        """Falsified is what the model itself answers otherwise."""
        pictures = self.inputs[rows] if parameters is None else applied(self.inputs[rows], parameters)
        hit = broken(self.model, pictures, self.labels[rows], targeted=False)
        self.verdict[rows[hit]] = VERDICTS.index("falsified")
        self.counterexamples[rows[hit]] = pictures[hit]

    def work(self, boxes: Boxes, cells: int, until: float) -> None:
        """Bound and halve until every sample is decided or has used up its parts, or the time is up."""
        most = self.inputs[0].numel() * 8 * (4 * len(samples_of(len(boxes.axes), self.inputs)) + COPIES)
        most = max(1, min(MANY, self.memory // most))
        batch, begun = most if until == math.inf else 1, time.perf_counter()
        before = torch.full((len(boxes),), -torch.inf, dtype=torch.float64, device=self.inputs.device)
        seen = torch.zeros_like(self.labels)
        given_up = torch.zeros_like(self.verdict, dtype=torch.bool)
        while len(boxes):
            if begun > until:
                given_up[boxes.picture] = True
                self.margin.scatter_reduce_(0, boxes.picture, before, "amin")
                break
            now, boxes, before = boxes.of(slice(batch)), boxes.of(slice(batch, None)), before[batch:]
            seen.index_add_(0, now.picture, torch.ones_like(now.picture))
            found = self.bounded(now, until)
            proved = found > 0
            self.margin.scatter_reduce_(0, now.picture[proved], found[proved], "amin")
            left, found = now.of(~proved), found[~proved]
            for at in (left.centre, left.centre + left.half, left.centre - left.half):
                self.tried(left.picture, whole(at, left.axes))
            waiting = seen + torch.bincount(boxes.picture, minlength=len(seen))
            waiting += 2 * torch.bincount(left.picture, minlength=len(seen))
            given_up |= (waiting > cells) & torch.isin(torch.arange(len(seen), device=seen.device), left.picture)
            over = given_up | (self.verdict > 0)
            for some, margins in ((left, found), (boxes, before)):
                ended = over[some.picture]
                self.margin.scatter_reduce_(0, some.picture[ended], margins[ended], "amin")
            kept, going = ~over[boxes.picture], ~over[left.picture]
            halves = self.halved(left.of(going))
            before = torch.cat([found[going].repeat(2), before[kept]])
            boxes = _joined(halves, boxes.of(kept))
            batch, begun = affordable(min(most, 2 * batch), len(now), begun, until), time.perf_counter()
        self.verdict[(self.verdict == 0) & ~given_up] = VERDICTS.index("verified")

    def bounded(self, boxes: Boxes, until: float) -> Tensor:
        """Lower bounds of the least margin over every box; after `until` by intervals of hidden values alone."""
        lines = self.method != "interval"
        region = between(self.inputs.double(), boxes, unit=self.unit, lines=lines)
        matrix = forms(self.labels[boxes.picture], self.graph)
        found = known(self.graph, region, unit=self.unit, refine=False)
        values = lower(found, matrix, full=lines, memory=self.memory).amin(1)
        rows = (values <= 0).nonzero().flatten()
        if self.method == "deeppoly" and len(rows) and time.perf_counter() <= until:
            better = known(
                self.graph, region.of(rows), unit=self.unit, memory=self.memory, start=found.of(rows), until=until
            )
            values[rows] = torch.maximum(values[rows], lower(better, matrix[rows], memory=self.memory).amin(1))
        return values

    def halved(self, boxes: Boxes) -> Boxes:
        """Both halves of every box, along the axis from whose one end to the other the picture changes most."""
        if not len(boxes):
            return boxes
        changes = list[Tensor]()
        for k in range(len(boxes.axes)):
            at = torch.zeros_like(boxes.centre)
            at[:, k] = 1
            one, other = (applied(self.inputs[boxes.picture], boxes.parameters(end)) for end in (at, -at))
            changes.append((one - other).flatten(1).abs().sum(1))
        axis, each = torch.stack(changes, dim=1).argmax(1), torch.arange(len(boxes), device=boxes.half.device)
        half, step = boxes.half.clone(), torch.zeros_like(boxes.half)
        half[each, axis] /= 2
        step[each, axis] = half[each, axis]
        return _joined(
            Boxes(boxes.axes, boxes.picture, boxes.centre - step, half),
            Boxes(boxes.axes, boxes.picture, boxes.centre + step, half),
        )


def _joined(a: Boxes, b: Boxes) -> Boxes:
    return Boxes(
        a.axes, *(torch.cat(pair) for pair in ((a.picture, b.picture), (a.centre, b.centre), (a.half, b.half)))
    )
