"""What a piecewise affine network says far away from everything: exact statements about the ray alpha x."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caveat.errors import ModelError, OptionError
from caveat.graph import Graph, trace
from caveat.rays.crossings import class_lost, confidence_lost, confidence_reached
from caveat.rays.pairs import piece

__all__ = ["Rays", "along", "row_distances"]

TIE = 1e-9  # two slopes that differ by less than this share of the largest tie
CLOSE = 1e-7  # of alpha: how far bisection goes


@dataclass(frozen=True)
class Rays:
    """One entry a ray. An alpha that does not exist is inf."""

    slopes: Float[Tensor, "n c"]
    offsets: Float[Tensor, "n c"]
    """logits(alpha x) = slopes alpha + offsets for alpha >= `last_breakpoint`."""
    last_breakpoint: Float[Tensor, " n"]
    """Where the outermost piece begins; 0 if the network is affine on the whole ray."""
    limit_class: Int[Tensor, " n"]
    """The class predicted far away."""
    tie: Bool[Tensor, " n"]
    """Several slopes are largest: the confidence tends to less than 1."""
    limit_confidence: Float[Tensor, " n"]
    """What the confidence tends to: 1 without a tie."""
    class_from: Float[Tensor, " n"]
    """The smallest alpha from which on the limit class is predicted."""
    first: Float[Tensor, " n"]
    """The smallest alpha with at least the threshold's confidence, in whatever class."""
    stays: Float[Tensor, " n"]
    """The smallest alpha from which on the confidence is at least the threshold."""
    exact: Bool[Tensor, " n"]
    """Whether all three were solved piece by piece. Otherwise at least one was bracketed (by alphas `factor` apart,
    between which a shorter excursion is not seen) and bisected."""
    row_distance: Float[Tensor, " n"] | None
    """Least distance of two rows of the outermost region's matrix, over the longest row; 0 breaks the theorem's
    condition. None if it was not asked for."""


def along(
    model: nn.Module | Graph,
    inputs: Float[Tensor, "n ..."],
    *,
    threshold: float = 0.999,
    start: int | float = 1.0,
    pieces: int = 64,
    factor: float = 1.1,
    rows: bool = True,
) -> Rays:
    """Follow the network along alpha x from alpha = `start` to infinity, for each input x.

    A network of linear maps, ReLU, max pooling and the like is affine on each of finitely many pieces of a ray, and on
    the outermost one for good: unless slopes tie, one class's confidence tends to 1, for noise as for a training
    image. All in float64. The limit costs one pass of pairs (two forward passes); `rows` one backward pass a class; the
    alphas one pass of pairs for each piece until they are found. A network of thousands of units has as many pieces:
    where more than `pieces` are ahead, alphas are bracketed by one forward pass for each `factor` (`exact` says where).

    Parameters
    ----------
    model
        Any network that `graph.trace` can follow, or its graph.
    threshold
        A confidence between a half and 1.
    pieces
        How many pieces to walk on each side at most; 0 to bracket at once.
    factor
        Between the alphas that are looked at instead; 1.1 is that of the published table.
    rows
        Check the theorem's condition too.

    Raises
    ------
    ModelError
        If the model is in training mode, not piecewise affine, or no classifier of at least two classes.
    OptionError
        If the threshold is not in (0.5, 1), `start` or `pieces` is negative, or the factor is not above 1.

    Source: Hein, Andriushchenko and Bitterwolf, Why ReLU networks yield high-confidence predictions far away from the
    training data, CVPR 2019 (arXiv 1812.05720), lemma 3.1 and theorem 3.1; the propagation of pairs is ours.

    Example
    -------
    >>> net = nn.Linear(1, 2)
    >>> _ = net.load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.tensor([0.0, 3.0])})
    >>> rays = along(net.eval(), torch.ones(1, 1), threshold=0.9)
    >>> int(rays.limit_class), round(float(rays.class_from), 6), round(float(rays.stays), 3)
    (0, 3.0, 5.197)
    """
    if not 0.5 < threshold < 1:
        raise OptionError(f"threshold: expected a confidence between 0.5 and 1, got {threshold}")
    if start < 0 or pieces < 0 or not factor > 1:
        raise OptionError(f"start, pieces, factor: expected >= 0, >= 0 and > 1, got {start}, {pieces} and {factor}")
    graph = (model if isinstance(model, Graph) else trace(model, inputs)).to(torch.float64, inputs.device)
    points = inputs.detach().double()
    with torch.no_grad():
        far = piece(graph, points, torch.full_like(points.flatten(1)[:, 0], math.inf))
        if far.slopes.ndim != 2 or far.slopes.shape[1] < 2:
            raise ModelError(f"model: expected logits of at least two classes, got shape {tuple(far.slopes.shape)}")
        last = far.last.clamp_min(0)
        slopes, tied = _tied(far.slopes)
        limit = far.offsets.masked_fill(~tied, -math.inf)
        search = _Search(graph, points, slopes, far.offsets, last, start, threshold, pieces, factor, limit.argmax(1))
        first, first_exact = search.first()
        stays, stays_exact = search.settled(search.confidence_lost, search.unsure)
        class_from, class_exact = search.settled(search.class_lost, search.another)
    return Rays(
        slopes=far.slopes,
        offsets=far.offsets,
        last_breakpoint=last,
        limit_class=limit.argmax(1),
        tie=tied.sum(1) > 1,
        limit_confidence=limit.softmax(1).amax(1),
        class_from=class_from,
        first=torch.minimum(first, stays),  # both are rounded
        stays=stays,
        exact=first_exact & stays_exact & class_exact,
        row_distance=row_distances(graph, points) if rows else None,
    )


def row_distances(graph: Graph, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Least distance between two rows of the matrix of the region in which each ray ends, over its longest row.

    The rows are the gradients of the slopes: within a region they are linear in x. One backward pass a class.
    """
    with torch.enable_grad():
        points = inputs.detach().clone().requires_grad_()
        slopes = piece(graph, points, torch.full_like(points.detach().flatten(1)[:, 0], math.inf)).slopes
        if not slopes.requires_grad:
            return slopes.new_zeros(len(slopes))
        total, c = slopes.sum(0), slopes.shape[1]
        rows = [torch.autograd.grad(total[k], points, retain_graph=k < c - 1)[0].flatten(1) for k in range(c)]
    matrix = torch.stack(rows, dim=1)
    apart = torch.cdist(matrix, matrix, compute_mode="donot_use_mm_for_euclid_dist")
    apart = apart + torch.diag(torch.full((c,), math.inf, dtype=apart.dtype, device=apart.device))
    return apart.amin((1, 2)) / matrix.norm(dim=2).amax(1).clamp_min(torch.finfo(apart.dtype).tiny)


def _tied(slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes with those that tie for the largest made equal, and which they are."""
    largest = slopes.amax(1, keepdim=True)
    tied = slopes >= largest - TIE * slopes.abs().amax(1, keepdim=True)
    return torch.where(tied, largest, slopes), tied


Lost = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Failing = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Search:
    """Looks for alphas on rays, of which the outermost piece is known."""

    graph: Graph
    points: Tensor
    slopes: Tensor
    offsets: Tensor
    last: Tensor
    start: int | float
    threshold: float
    pieces: int
    factor: float
    limit_class: Tensor

    def first(self) -> tuple[Tensor, Tensor]:
        """The smallest alpha with the threshold's confidence, and whether it was found piece by piece."""
        at = torch.full_like(self.last, self.start)
        found, exact = torch.full_like(at, math.inf), torch.ones_like(at, dtype=torch.bool)
        rows = (at < self.last).nonzero().squeeze(1)
        left = torch.empty_like(rows[:0])  # rays with too many pieces
        for _ in range(self.pieces):
            if not len(rows):
                break
            now = piece(self.graph, self.points[rows], at[rows])
            few = now.ahead <= self.pieces
            left, rows, now = torch.cat([left, rows[~few]]), rows[few], now.of(few)
            end = torch.minimum(now.end, self.last[rows])
            found[rows] = confidence_reached(now.slopes, now.offsets, at[rows], end, self.threshold)
            at[rows] = end
            rows = rows[torch.isinf(found[rows]) & (end < self.last[rows])]
        rows = torch.cat([left, rows])
        exact[rows] = False
        self._bracket_first(rows, at, found)
        rows = torch.isinf(found)
        begin = self.last[rows].clamp_min(self.start)
        outer = (self.slopes[rows], self.offsets[rows], begin, torch.full_like(begin, math.inf))
        found[rows] = confidence_reached(*outer, self.threshold)
        return found, exact

    def _bracket_first(self, rows: Tensor, at: Tensor, found: Tensor) -> None:
        """Go outwards by the factor until the confidence is there, then bisect."""
        low = at[rows]
        while len(rows):
            high = torch.minimum(low * self.factor + 1e-3 * (low == 0), self.last[rows])
            there = ~self.unsure(rows, high)
            found[rows[there]] = self._bisected(rows[there], low[there], high[there], self.unsure)
            going = ~there & (high < self.last[rows])
            rows, low = rows[going], high[going]

    def settled(self, lost: Lost, failing: Failing) -> tuple[Tensor, Tensor]:
        """The smallest alpha from which on something holds, by going inwards from the outermost piece."""
        everything = torch.arange(len(self.last), device=self.last.device)
        at = self.last.clamp_min(self.start)
        outer = torch.full_like(at, math.inf)
        found = lost(everything, self.slopes, self.offsets, at, outer)
        exact = torch.ones_like(found, dtype=torch.bool)
        rows = (torch.isneginf(found) & (at > self.start)).nonzero().squeeze(1)
        left = torch.empty_like(rows[:0])
        for _ in range(self.pieces):
            if not len(rows):
                break
            now = piece(self.graph, self.points[rows], at[rows], side="left")
            few = now.ahead <= self.pieces
            left, rows, now = torch.cat([left, rows[~few]]), rows[few], now.of(few)
            begin = now.end.clamp_min(self.start)
            found[rows] = lost(rows, now.slopes, now.offsets, begin, at[rows])
            at[rows] = begin
            rows = rows[torch.isneginf(found[rows]) & (begin > self.start)]
        rows = torch.cat([left, rows])
        exact[rows] = False
        high = at[rows]
        while len(rows):
            low = (high / self.factor - 1e-3 * (high < 0.05)).clamp_min(self.start)
            fails = failing(rows, low)
            found[rows[fails]] = self._bisected(rows[fails], low[fails], high[fails], failing)
            going = ~fails & (low > self.start)
            rows, high = rows[going], low[going]
        return found.clamp_min(self.start), exact

    def confidence_lost(self, rows: Tensor, slopes: Tensor, offsets: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """See `crossings`."""
        del rows
        return confidence_lost(slopes, offsets, start, end, self.threshold)

    def class_lost(self, rows: Tensor, slopes: Tensor, offsets: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """See `crossings`."""
        return class_lost(slopes, offsets, start, end, self.limit_class[rows])

    def unsure(self, rows: Tensor, at: Tensor) -> Tensor:
        """Whether the confidence is below the threshold."""
        logits = self._logits(rows, at)
        top, where = logits.max(1, keepdim=True)
        others = logits.scatter(1, where, -math.inf).logsumexp(1)
        return top.squeeze(1) - others < math.log(self.threshold) - math.log1p(-self.threshold)

    def another(self, rows: Tensor, at: Tensor) -> Tensor:
        """Whether another class than that of the limit is predicted."""
        return self._logits(rows, at).argmax(1) != self.limit_class[rows]

    def _logits(self, rows: Tensor, at: Tensor) -> Tensor:
        points = self.points[rows]
        return self.graph(points * at.reshape(-1, *[1] * (points.ndim - 1)))

    def _bisected(self, rows: Tensor, low: Tensor, high: Tensor, failing: Failing) -> Tensor:
        """Between a point where it fails and one where it does not, to 1e-7 of alpha."""
        while len(rows) and bool((high - low > CLOSE * high).any()):
            middle = (low + high) / 2
            fails = failing(rows, middle)
            low, high = torch.where(fails, middle, low), torch.where(fails, high, middle)
        return high
