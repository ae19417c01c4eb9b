"""Scores counted: all that the ranking and selective metrics need to know about a set, in float64.

A tally is small and mergeable, so data can be gone through in parts. Two modes: *exact*, one cell per distinct score;
*histogram*, one cell per bin of given edges, whose size does not grow with the number of samples.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import _check
from caveat.metrics._resampling import multinomial

__all__ = [
    "Tally",
    "compress",
    "histogram_tally",
    "merge",
    "mirror",
    "quantile_edges",
    "resample",
    "tally",
    "tally_sets",
]


@dataclass(frozen=True)
class Tally:
    """How many samples of each side have which score. Higher scores should be the positive side's.

    The threshold `values[i]` accepts (score <= threshold) exactly the samples of the cells 0..i, in both modes.
    """

    values: Float64[Tensor, " m"]
    """Ascending: the distinct scores, or the upper edges of the bins (the last is infinite)."""
    negative: Float64[Tensor, "*replicas m"]
    """Counts of in-distribution samples, or of correct predictions."""
    positive: Float64[Tensor, "*replicas m"]
    """Counts of the OOD, or of the wrong."""


def tally(scores: Float[Tensor, "*shape"], positive: Bool[Tensor, "*shape"]) -> Tally:
    """Count scores exactly: one cell per distinct score.

    Ten million scores take about two seconds; memory is 24 bytes per distinct score.

    Parameters
    ----------
    scores: higher = less trustworthy; any shape (dense scores are flattened).
    positive: True for the OOD (or the wrong).

    Raises
    ------
    DataError
        If there are no scores, the shapes differ, or a score is NaN or infinite.

    Examples
    --------
    >>> counted = tally(torch.tensor([0.1, 0.2, 0.2, 0.9]), torch.tensor([False, False, True, True]))
    >>> counted.negative.tolist(), counted.positive.tolist()
    ([1.0, 1.0, 0.0], [0.0, 1.0, 1.0])
    """
    _check.pair("scores", scores, "positive", positive)
    _check.finite("scores", scores)
    return _united(scores[~positive], scores[positive])


def tally_sets(negative: Float[Tensor, "*first"], positive: Float[Tensor, "*second"]) -> Tally:
    """Count two sets of scores exactly: in-distribution and OOD (or the correct and the wrong).

    One of them may be empty. Otherwise as `tally`.
    """
    _check.finite("scores", torch.cat([negative.reshape(-1), positive.reshape(-1)]))
    return _united(negative.reshape(-1), positive.reshape(-1))


def histogram_tally(
    scores: Float[Tensor, "*shape"], positive: Bool[Tensor, "*shape"], *, edges: Float[Tensor, " e"]
) -> Tally:
    """Count scores in bins ]edges[i-1], edges[i]]; the first bin is open below, one more holds all above.

    For streams: the size is fixed by the edges. Take them from the first batches by `quantile_edges`. Ranks are then
    known to one bin; with 4096 quantile bins AUROC and AURC change by about 1e-5, AUPR by 1e-4.

    Raises
    ------
    DataError
        As `tally`; or if the edges are not finite and strictly ascending.
    """
    _check.pair("scores", scores, "positive", positive)
    _check.finite("scores", scores)
    _check.finite("edges", edges)
    edges = edges.double().contiguous()
    if bool((edges.diff() <= 0).any()):
        raise DataError("edges: expected strictly ascending values, got some that are equal or descend")
    cells = edges.numel() + 1
    place = torch.bucketize(scores.detach().reshape(-1).double().contiguous(), edges)
    both = place.bincount(minlength=cells).double()
    above = place[positive.reshape(-1)].bincount(minlength=cells).double()
    return Tally(torch.cat((edges, edges.new_full((1,), torch.inf))), both - above, above)


def quantile_edges(scores: Float[Tensor, "*shape"], *, bins: int = 4096) -> Float64[Tensor, " e"]:
    """Edges for `histogram_tally` so that each bin holds the same share of these scores (ties stay together)."""
    _check.at_least("bins", bins, 1)
    _check.finite("scores", scores)
    ordered = _ascending(scores.reshape(-1))
    ranks = torch.arange(1, bins + 1, device=ordered.device) * ordered.numel() // bins - 1
    return ordered[ranks.clamp(min=0)].unique_consecutive()


def merge(first: Tally, second: Tally) -> Tally:
    """The tally of both sets together, as if they had been counted at once."""
    if torch.equal(first.values, second.values):
        return Tally(first.values, first.negative + second.negative, first.positive + second.positive)
    values = _ascending(torch.cat((first.values, second.values))).unique_consecutive()
    place = torch.searchsorted(values, first.values), torch.searchsorted(values, second.values)

    def added(left: Tensor, right: Tensor) -> Tensor:
        both = values.new_zeros(*left.shape[:-1], values.numel())
        return both.index_add_(-1, place[0], left).index_add_(-1, place[1], right)

    return Tally(values, added(first.negative, second.negative), added(first.positive, second.positive))


def mirror(counted: Tally) -> Tally:
    """The same samples seen from the other side: scores negated, positive and negative exchanged.

    So that a metric can be had in the other convention: `fpr_at_tpr(mirror(t))` is the share of in-distribution inputs
    that is rejected when 95 % of the OOD are caught, as TRADI's tables have it.
    """
    return Tally(-counted.values.flip(-1), counted.positive.flip(-1), counted.negative.flip(-1))


def compress(counted: Tally, *, bins: int = 4096) -> Tally:
    """Join neighbouring cells to at most `bins`, of about equal share (mean of both sides'); drop empty ones.

    A joined cell is named by its highest score, so its thresholds stay exact.
    """
    negative, positive = counted.negative.cumsum(-1), counted.positive.cumsum(-1)
    if negative.ndim > 1:
        raise DataError(f"counted: expected a tally without replicas, got {negative.shape[0]} of them")
    if counted.values.numel() <= bins:
        filled = (counted.negative + counted.positive) > 0
        return Tally(counted.values[filled], counted.negative[filled], counted.positive[filled])
    shares = [total / total[-1] for total in (negative, positive) if total[-1] > 0]
    cell = (torch.stack(shares).mean(0) * bins).ceil().clamp(1, bins)
    # The highest score of a cell that holds samples: where the cell number changes next.
    last = torch.cat((cell.diff() > 0, cell.new_ones(1, dtype=torch.bool)))
    zero = negative.new_zeros(1)
    joined = Tally(counted.values[last], negative[last].diff(prepend=zero), positive[last].diff(prepend=zero))
    filled = (joined.negative + joined.positive) > 0
    return Tally(joined.values[filled], joined.negative[filled], joined.positive[filled])


def resample(counted: Tally, *, replicas: int, generator: torch.Generator, stratified: bool = True) -> Tally:
    """Bootstrap replicas of a tally, on a leading axis; big tallies are first compressed to 4096 cells.

    Parameters
    ----------
    stratified
        Draw each side by itself, so that its size is kept: for in-distribution against OOD, two sets that somebody
        chose. False: draw from all, so that the share of the positives varies too: for correct against wrong answers.

    Raises
    ------
    OptionError
        If `replicas` is less than 1.
    """
    _check.at_least("replicas", replicas, 1)
    small = compress(counted)
    if stratified:
        negative = multinomial(small.negative, replicas=replicas, generator=generator)
        positive = multinomial(small.positive, replicas=replicas, generator=generator)
    else:
        cells = torch.cat((small.negative, small.positive))
        negative, positive = multinomial(cells, replicas=replicas, generator=generator).chunk(2, dim=-1)
    return Tally(small.values, negative, positive)


def _ascending(scores: Tensor) -> Tensor:
    """Sorted, in float64."""
    scores = scores.detach() if scores.dtype in (torch.float32, torch.float64) else scores.detach().float()
    if scores.device.type == "cpu":  # numpy sorts with vector instructions: 15 times as fast as torch here
        return torch.from_numpy(np.sort(scores.numpy())).double()
    return scores.sort().values.double()


def _united(negative: Tensor, positive: Tensor) -> Tally:
    first, first_counts = _ascending(negative).unique_consecutive(return_counts=True)
    second, second_counts = _ascending(positive).unique_consecutive(return_counts=True)
    return merge(
        Tally(first, first_counts.double(), torch.zeros_like(first)),
        Tally(second, torch.zeros_like(second), second_counts.double()),
    )
