"""Whether confidence is the rate of right predictions: errors of calibration from samples counted in bins of
confidence.

`Bins` are the state: float64 sums, mergeable, a few hundred bytes for any number of samples or pixels. The bins are
](m−1)/M, m/M], m = 1..M; confidence 0 belongs to the first, 1 to the last (torchmetrics gives 1 a bin of its own).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import _check
from caveat.metrics.tally import tally

__all__ = [
    "Bins",
    "Reliability",
    "classwise_bins",
    "confidence_bins",
    "ece",
    "ece_classwise",
    "ece_equal_mass",
    "mce",
    "mean_confidence",
    "merge",
    "regroup",
    "reliability",
    "rmsce",
]


@dataclass(frozen=True)
class Bins:
    """Sums over the samples of each bin. A leading axis holds classes (`classwise_bins`) or bootstrap replicas."""

    count: Float64[Tensor, "*rows m"]
    confidence: Float64[Tensor, "*rows m"]
    """Sum of the confidences."""
    hits: Float64[Tensor, "*rows m"]
    """How many were right (classwise: were of the class)."""


class Reliability(NamedTuple):
    """A reliability diagram: one entry per bin that holds samples."""

    confidence: Float64[Tensor, " b"]
    accuracy: Float64[Tensor, " b"]
    share: Float64[Tensor, " b"]
    """Share of the samples in the bin; sums to 1."""


def confidence_bins(
    probs: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    bins: int = 15,
    midpoint: bool = False,
    void: int | None = None,
) -> Bins:
    """Count samples (or pixels) in equal-width bins of their highest probability.

    For streams: count each batch and `merge`. One pass; nothing of the size of the data is kept.

    Parameters
    ----------
    probs: probabilities, classes on axis 1; never logits.
    labels: 0 to c − 1; `void` marks those that have no label and are left out.
    midpoint: take the middle of the bin, (m − ½)/M, for its mean confidence (Okatani's book) instead of the mean of
        the confidences in it (Guo et al.).

    Raises
    ------
    DataError
        If `probs` are not probabilities, shapes do not match, a label is out of range, or nothing is labelled.
    OptionError
        If `bins` is less than 1.
    """
    confidence, hit = _top(probs, labels, void)
    counted = _count(confidence, hit, bins)
    if midpoint:
        middle = (torch.arange(bins, device=probs.device, dtype=torch.float64) + 0.5) / bins
        return Bins(counted.count, counted.count * middle, counted.hits)
    return counted


def classwise_bins(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, bins: int = 15, void: int | None = None
) -> Bins:
    """Count, class by class, the probability of the class and whether it was the label: `Bins` with rows = classes.

    Arguments and errors as `confidence_bins`.
    """
    valid = _check.labelled(probs, labels, name="probs", void=void)
    _check.probabilities(probs)
    kept = labels[valid]
    each = [_count(probs[:, k][valid], kept == k, bins) for k in range(probs.shape[1])]
    return Bins(
        torch.stack([row.count for row in each]),
        torch.stack([row.confidence for row in each]),
        torch.stack([row.hits for row in each]),
    )


def merge(first: Bins, second: Bins) -> Bins:
    """The bins of both sets together, as if they had been counted at once.

    Raises
    ------
    DataError
        If the two have different numbers of bins (or classes).
    """
    if first.count.shape != second.count.shape:
        raise DataError(
            f"second: expected {tuple(first.count.shape)} bins, as first has, got {tuple(second.count.shape)}"
        )
    return Bins(first.count + second.count, first.confidence + second.confidence, first.hits + second.hits)


def regroup(fine: Bins, *, bins: int = 15) -> Bins:
    """Join neighbouring bins to `bins` of about equal mass.

    Each fine bin goes whole to group ⌈M r/n⌉ by the mean rank r of its samples, so samples that share a bin (or a
    confidence) are never parted. For a streamed equal-mass ECE: `regroup(confidence_bins(probs, labels, bins=4096))`.

    Raises
    ------
    OptionError
        If `bins` is less than 1.
    """
    _check.at_least("bins", bins, 1)
    count = fine.count.long()
    total = count.sum(-1, keepdim=True)
    twice_rank = 2 * (count.cumsum(-1) - count) + count + 1
    group = ((bins * twice_rank + 2 * total - 1) // (2 * total) - 1).clamp(0, bins - 1)

    def joined(sums: Tensor) -> Tensor:
        return sums.new_zeros(*sums.shape[:-1], bins).scatter_add_(-1, group, sums)

    return Bins(joined(fine.count), joined(fine.confidence), joined(fine.hits))


def ece(counted: Bins) -> Float64[Tensor, "*rows"]:
    """Expected calibration error: the mean distance of confidence and accuracy, bin by bin.

    The usual single number; it depends on the bins, says nothing on how useful the answers are, and is biased upwards
    on small sets. Formula: Σ_m |B_m|/n · |acc(B_m) − conf(B_m)|, in [0, 1]; 0 is calibrated.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, equation 3.

    Examples
    --------
    >>> probs = torch.tensor([[0.95, 0.05], [1.0, 0.0]])  # textbook: (|0.95 - 0| + |1 - 1|) / 2; one bin of two
    >>> round(ece(confidence_bins(probs, torch.tensor([0, 1]), bins=10)).item(), 6)
    0.475
    """
    return (counted.hits - counted.confidence).abs().sum(-1) / counted.count.sum(-1)


def mce(counted: Bins) -> Float64[Tensor, "*rows"]:
    """Maximum calibration error: the largest distance of confidence and accuracy of the bins that hold samples.

    Formula: max_m |acc(B_m) − conf(B_m)|, in [0, 1]. One sample in a bin of its own can decide it: read it with the
    shares of the reliability diagram.

    Source: Guo et al., ICML 2017, equation 5.
    """
    return ((counted.hits - counted.confidence).abs() / counted.count.clamp(min=1)).amax(-1)


def rmsce(counted: Bins) -> Float64[Tensor, "*rows"]:
    """Root mean square calibration error: large gaps weigh more; at least the ECE.

    Formula: (Σ_m |B_m|/n · (acc(B_m) − conf(B_m))²)^½, in [0, 1].

    Source: D. Hendrycks, M. Mazeika, T. Dietterich, Deep anomaly detection with outlier exposure, ICLR 2019 (RMS
    error).
    """
    squares = (counted.hits - counted.confidence) ** 2 / counted.count.clamp(min=1)
    return (squares.sum(-1) / counted.count.sum(-1)).sqrt()


def mean_confidence(counted: Bins) -> Float64[Tensor, "*rows"]:
    """Mean highest probability. Above the accuracy: the network is overconfident on the whole.

    Formula: mean_i max_k p_ik, in [1/c, 1].

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, section 2 (confidence).
    """
    return counted.confidence.sum(-1) / counted.count.sum(-1)


def reliability(counted: Bins) -> Reliability:
    """The reliability diagram: per bin that holds samples, mean confidence, accuracy and share.

    Raises
    ------
    DataError
        If the bins have a leading axis: draw one row at a time.
    """
    if counted.count.ndim != 1:
        raise DataError(f"counted: expected one row of bins, got {tuple(counted.count.shape)}; take one row at a time")
    filled = counted.count > 0
    count = counted.count[filled]
    return Reliability(counted.confidence[filled] / count, counted.hits[filled] / count, count / count.sum())


def ece_equal_mass(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, bins: int = 15, void: int | None = None
) -> Float64[Tensor, ""]:
    """ECE with bins that hold about equally many samples; equal confidences are never parted.

    A steadier estimate than `ece` where nearly all confidences are near 1. Formula: as `ece`; a sample of rank r of n
    (ascending; ties: their mean rank) is in bin ⌈M r/n⌉. Needs all confidences at once (see `regroup` for streams).
    Arguments and errors as `confidence_bins`.

    Source: K. Nguyen, B. O'Connor, Posterior calibration and exploratory analysis for natural language processing
    models, EMNLP 2015.
    """
    _check.at_least("bins", bins, 1)
    confidence, hit = _top(probs, labels, void)
    cells = tally(confidence, ~hit)
    count = cells.negative + cells.positive
    return ece(regroup(Bins(count, count * cells.values, cells.negative), bins=bins))


def ece_classwise(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, bins: int = 15, void: int | None = None
) -> Float64[Tensor, ""]:
    """Classwise ECE: the ECE of each class's probability, averaged over the classes.

    Sees what the top label's ECE can't: probabilities of the other classes that are off. Small in size when there are
    many classes, as most of their probabilities are near 0. Formula: Σ_k ECE_k / c, in [0, 1].
    Arguments and errors as `confidence_bins`.

    Source: M. Kull et al., Beyond temperature scaling, NeurIPS 2019, equation 3.
    """
    return ece(classwise_bins(probs, labels, bins=bins, void=void)).mean()


def _top(probs: Tensor, labels: Tensor, void: int | None) -> tuple[Tensor, Tensor]:
    """Confidence, and whether it was right, of each labelled sample or pixel."""
    valid = _check.labelled(probs, labels, name="probs", void=void)
    _check.probabilities(probs)
    confidence, predicted = probs.detach().max(dim=1)
    return confidence[valid], (predicted == labels)[valid]


def _count(confidence: Tensor, hit: Tensor, bins: int) -> Bins:
    _check.at_least("bins", bins, 1)
    # Edges are rounded to the dtype of the confidences: 0.2 is at the edge m/M = 0.2 in float32 as in float64.
    edges = (torch.arange(1, bins, device=confidence.device, dtype=torch.float64) / bins).to(confidence.dtype).double()
    wide = confidence.detach().double()
    place = torch.bucketize(wide, edges)
    return Bins(
        place.bincount(minlength=bins).double(),
        place.bincount(weights=wide.clamp(max=1), minlength=bins),
        place[hit].bincount(minlength=bins).double(),
    )
