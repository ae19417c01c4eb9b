"""Certificates: for each sample whether any input near it changes the answer - proved, disproved, or open."""

import math
import time
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caveat.attacks import Ball, pgd
from caveat.attacks.network import broken, checked
from caveat.bounds.alpha import tightened
from caveat.bounds.branch import decided
from caveat.bounds.deeppoly import MEMORY, known, lower, unit_of
from caveat.bounds.outputs import MANY, check_memory, forms, traced
from caveat.bounds.region import Region
from caveat.bounds.values import Known
from caveat.errors import CaveatWarning, OptionError, known_name
from caveat.graph import Graph, assert_same
from caveat.types import Labels, Mask

__all__ = ["METHODS", "VERDICTS", "Certificate", "certify"]

VERDICTS = ("open", "verified", "falsified")
METHODS = ("interval", "deeppoly", "alpha", "branch")
TIMED = {"alpha": math.inf, "branch": 60.0}
"""Seconds for each sample, unless told otherwise."""


@dataclass(frozen=True)
class Certificate:
    """One entry a sample."""

    verdict: Int[Tensor, " n"]
    """A place in `VERDICTS`."""
    margin: Float[Tensor, " n"]
    """A lower bound of the label's logit minus the largest other one, over the whole ball; above 0 it is proof."""
    counterexamples: Float[Tensor, "n ..."]
    """Of a falsified sample an input in its ball that the model itself answers otherwise; else the input."""

    def __repr__(self) -> str:
        """How many there are of each verdict."""
        counts = ", ".join(f"{name}={int((self.verdict == k).sum())}" for k, name in enumerate(VERDICTS))
        return f"Certificate({counts})"

    @property
    def verified(self) -> Mask:
        """No input of the ball has another answer than the label."""
        return self.verdict == VERDICTS.index("verified")

    @property
    def falsified(self) -> Mask:
        """An input of the ball has another answer."""
        return self.verdict == VERDICTS.index("falsified")

    @property
    def open(self) -> Mask:
        """Neither was found."""
        return self.verdict == VERDICTS.index("open")


def certify(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    method: Literal["interval", "deeppoly", "alpha", "branch"] = "deeppoly",
    seconds: float | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    graph: Graph | None = None,
) -> Certificate:
    """Whether the network answers `labels` on every input of the ball around each sample.

    Bounds that prove it come first; what they leave is attacked (PGD), and what is found is checked on the model
    itself. `interval` and `deeppoly` are fast; `alpha` optimises the bounds and proves at least what `deeppoly` does;
    `branch` then splits ReLUs until each sample is decided or its time is up.

    Parameters
    ----------
    seconds
        For `alpha` (no limit without) and `branch` (60 without), for each sample that bounds leave open. The step that
        is under way is finished: about four times DeepPoly's own time.
    seed
        Of the attack's random starts.
    memory
        Bytes that coefficients may take at once.
    graph
        The model's `graph.trace`, which takes a second or two, where it is known already.

    Raises
    ------
    ModelError, DataError
        As `bounds` and `attacks.pgd`; if the model is another one at the end.
    OptionError
        If a method is unknown, `seconds` is not above 0 or given for another method than those two, or `memory` is not
        above 0.

    Formula: verified if min over the ball of z_y - z_k is above 0 for every k != y, by the bounds of `bounds.bounds`.

    Source: as `bounds.bounds`, `bounds.alpha.tightened` and `bounds.branch.decided`.

    Example
    -------
    >>> net = nn.Linear(1, 2)
    >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.zeros(2)})
    >>> inputs = torch.tensor([[0.5], [0.1], [0.15]])
    >>> found = certify(net.eval(), inputs, torch.tensor([0, 0, 0]), Ball(torch.inf, 0.2, low=-1))
    >>> [VERDICTS[k] for k in found.verdict]
    ['verified', 'falsified', 'falsified']
    """
    known_name("method", method, METHODS)
    if seconds is not None and (method not in TIMED or not seconds > 0):
        raise OptionError(
            f"seconds: expected a number above 0, with method='alpha' or 'branch', got {seconds} with {method!r}"
        )
    check_memory(memory)
    labels = checked(model, inputs, labels)
    region, unit = Region.around(inputs, ball), unit_of(model, inputs)
    verdict = torch.zeros_like(labels)
    if not len(inputs):
        return Certificate(verdict, labels.double(), inputs)
    graph = traced(model, inputs, graph)
    with torch.no_grad():
        matrix = forms(labels, graph)
        wrong = broken(model, inputs, labels, targeted=False)
        found = known(graph, region, unit=unit, refine=method != "interval", memory=memory)
        margins = lower(found, matrix, full=method != "interval", memory=memory)
    state = _State(model, inputs, labels, ball, verdict, margins, inputs.clone())
    state.verdict[wrong] = VERDICTS.index("falsified")
    state.prove()
    state.attack(_climbable(model, graph, inputs), seed)
    if method in TIMED:
        state.tighten(found, matrix, unit, memory, seconds or TIMED[method], branch=method == "branch")
    assert_same(graph, model, inputs[:MANY])  # what keeps a state may have become another network
    return Certificate(state.verdict, state.margins.amin(1), state.counterexamples)


class _Listed(nn.Module):
    """A list of operations as a network."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, inputs: Tensor) -> Tensor:
        return self.graph(inputs)


def _climbable(model: nn.Module, graph: Graph, inputs: Tensor) -> nn.Module:
    """The network, or if it gives no gradient (its forward pass is under `no_grad`) what it computes."""
    with torch.enable_grad():
        if model(inputs[:1].detach().requires_grad_()).requires_grad:
            return model
    return _Listed(graph.to(inputs.dtype, inputs.device)).eval()


@dataclass
class _State:
    """What is decided so far."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    ball: Ball
    verdict: Tensor
    margins: Tensor
    counterexamples: Tensor

    def prove(self) -> None:
        """Verified are samples that nothing speaks against and whose margins are all above 0."""
        proved = (self.verdict == 0) & (self.margins > 0).all(1)
        self.verdict[proved] = VERDICTS.index("verified")

    def attack(self, model: nn.Module, seed: int) -> None:
        """PGD on what is open, by the gradients of `model`; what it finds is asked of the network itself."""
        rows = self._rows()
        if not len(rows):
            return
        generator = torch.Generator(self.inputs.device).manual_seed(seed)
        with warnings.catch_warnings():  # a gradient of 0 is nothing to warn of where bounds do the work
            warnings.simplefilter("ignore", CaveatWarning)
            points = pgd(
                model, self.inputs[rows], self.labels[rows], self.ball, generator=generator, restarts=5,
                skip_broken=True,
            )  # fmt: skip
        self._falsify(rows, points)

    def tighten(self, found: Known, matrix: Tensor, unit: float, memory: int, seconds: float, *, branch: bool) -> None:
        """Better bounds for what is open, and branch and bound, within `seconds` for each sample."""
        for row in self._rows().tolist():
            until = time.perf_counter() + seconds
            only = torch.tensor([row], device=matrix.device)
            better = tightened(found.of(only), matrix[only], unit=unit, until=until, memory=memory)
            self.margins[row] = better.values[0]
            self.prove()
            if not branch or self.verdict[row]:
                continue
            left = matrix[row][better.values[0] <= 0]
            proved, point = decided(
                better.known,
                left,
                unit=unit,
                until=until,
                attack=lambda points, row=row: self._try(row, points),
            )
            if proved:
                self.verdict[row] = VERDICTS.index("verified")
                self.margins[row] = self.margins[row].clamp_min(0)
            elif point is not None:
                self._falsify(only, point)

    def _rows(self) -> Tensor:
        return (self.verdict == 0).nonzero().squeeze(1)

    def _falsify(self, rows: Tensor, points: Tensor) -> None:
        hit = rows[broken(self.model, points, self.labels[rows], targeted=False)]
        self.counterexamples[rows] = torch.where(
            torch.isin(rows, hit).reshape(-1, *[1] * (points.ndim - 1)), points, self.counterexamples[rows]
        )
        self.verdict[hit] = VERDICTS.index("falsified")

    def _try(self, row: int, points: Tensor) -> Tensor | None:
        """The first of the points, brought into the ball, that the model answers otherwise."""
        centres = self.inputs[row : row + 1].expand(len(points), *self.inputs.shape[1:])
        points = self.ball.project(points.to(self.inputs.dtype), centres)
        hit = broken(self.model, points, self.labels[row].expand(len(points)), targeted=False).nonzero().flatten()
        return points[hit[:1]] if len(hit) else None
