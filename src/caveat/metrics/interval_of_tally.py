"""How uncertain a metric of a tally is: of ranking, of selective prediction, and FPR at 95 % TPR.

From the exact counts, without a bootstrap: how much a metric moves with the weight of each sample gives its variance,
and a metric that lies in [0, 1] is then taken as a share of as many samples as would have this variance.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from caveat.errors import DataError, OptionError
from caveat.metrics import _check, ranking, selective
from caveat.metrics.interval import FEW, Interval, interval_of_share, t_quantile, wilson
from caveat.metrics.tally import Tally

__all__ = ["interval_of_fpr", "interval_of_ranking", "interval_of_selective"]

_PRIOR = 0.25
"""Weight, in misranked samples, of the variance that scores with exponential tails would have."""


def interval_of_ranking(metric: Callable[[Tally], Tensor], counted: Tally, *, level: float = 0.95) -> Interval | None:
    """Interval of `auroc`, `aupr_in` or `aupr_out`, both sides being sets that somebody chose; never of width zero.

    The variance is DeLong's for AUROC (from the placements of each sample among the other side), and its like for the
    AUPR: the infinitesimal jackknife, whose derivatives are computed automatically. A few misranked samples tell little
    of it and none tell nothing, so a little of the variance that Hanley and McNeil have for exponential scores is mixed
    in. Wilson's interval of a share that is as uncertain then has the right skewness, and one end at a perfect value.
    None if a side has fewer than `FEW` samples.

    Formula: n_eff = v (1 - v)/V; 1/n = (k/n_eff + ¼/n_HM)/(k + ¼) with k = min(v, 1 - v) n_eff, at most 4 n_HM of it;
    Wilson's interval of v with n, and Student's quantile by Satterthwaite's degrees of freedom.

    Raises
    ------
    DataError
        If a side is empty or the tally holds replicas.
    OptionError
        If the metric is another, or `level` is not in ]0, 1[.

    Source: E. DeLong, D. DeLong, D. Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves, Biometrics 44 (1988); R. Newcombe, Confidence intervals for an effect size measure based on
    the Mann-Whitney statistic, part 2, Statistics in Medicine 25 (2006), method 5 (n_HM); L. Jaeckel, The infinitesimal
    jackknife, Bell Laboratories (1972).

    >>> from caveat.metrics.tally import tally_sets
    >>> found = interval_of_ranking(ranking.auroc, tally_sets(torch.arange(30.0), torch.arange(40.0, 70.0)))
    >>> [round(end, 3) for end in found] if found else None
    [1.0, 0.933, 1.0]
    """
    first, second = _sizes(counted, level)
    others: dict[Callable[[Tally], Tensor], float] = {
        ranking.auroc: (first + second) / 2,
        ranking.aupr_in: second,
        ranking.aupr_out: first,
    }
    if metric not in others:
        raise OptionError(
            "metric: expected auroc, aupr_in or aupr_out, got another; of fpr_at_tpr take interval_of_fpr"
        )
    if min(first, second) < FEW:
        return None
    value, (one, other) = _jackknife(metric, counted, stratified=True)
    variance = one + other
    # What is not to be found bounds how far an AUPR falls: among 2,000 of them, 20 others cost precision little.
    fall = min(1.0, 2 * others[metric] / (first + second))

    def reference(at: float) -> float:
        return _exponential_size(at, first, second) / fall

    if variance <= 0 or not 0 < value < 1:
        return _never_empty(value, reference, NormalDist().inv_cdf((1 + level) / 2))
    own, usual = value * (1 - value) / variance, reference(value)
    seen = min(value, 1 - value) * min(own, 4 * usual)
    freedom = variance**2 / (one**2 / (first - 1) + other**2 / (second - 1))
    return wilson(value, (seen + _PRIOR) / (seen / own + _PRIOR / usual), t_quantile(freedom, level))


def interval_of_selective(metric: Callable[[Tally], Tensor], counted: Tally, *, level: float = 0.95) -> Interval | None:
    """Interval of `aurc` or `augrc`, the share of wrong predictions being part of what varies.

    As `interval_of_ranking`, with the variance of both sides together. None if fewer than `FEW` predictions are wrong,
    or correct.

    Raises
    ------
    DataError
        If a side is empty or the tally holds replicas.
    OptionError
        If the metric is another, or `level` is not in ]0, 1[.

    Source: L. Jaeckel, The infinitesimal jackknife, Bell Laboratories (1972).
    """
    if metric not in (selective.aurc, selective.augrc):
        raise OptionError(
            "metric: expected aurc or augrc, got another, whose variance is not that of a smooth function"
        )
    fewest = min(_sizes(counted, level))
    if fewest < FEW:
        return None
    value, parts = _jackknife(metric, counted, stratified=False)
    return wilson(value, value * (1 - value) / sum(parts), t_quantile(fewest - 1, level))


def interval_of_fpr(counted: Tally, *, tpr: float = 0.95, level: float = 0.95) -> Interval | None:
    """Interval of `fpr_at_tpr`, whose threshold is estimated too.

    Two things vary: which OOD samples were drawn, for which there is Wilson's interval, and the threshold, which lies
    between two order statistics of the in-distribution scores (a binomial number of them is below the true one). What
    the share of accepted OOD samples is at these two is added in squares. Too wide rather than too narrow where few
    scores are between them. None if a side has fewer than `FEW` samples.

    Formula: f(r) the share accepted at the r-th in-distribution score, r± = n tpr ± z (n tpr (1 - tpr))^½;
    low = v - ((v - Wilson's low)² + (v - f(r-))²)^½, and so the high end.

    Raises
    ------
    DataError
        If a side is empty or the tally holds replicas.
    OptionError
        If `tpr` is not in ]0, 1], or `level` not in ]0, 1[.

    Source: G. Zou, A. Donner, Construction of confidence limits about effect measures: a general approach, Statistics
    in Medicine 27 (2008), equations 3 and 4 (adding in squares); H. David, H. Nagaraja, Order statistics (2003),
    section 7.1.
    """
    first, second = _sizes(counted, level)
    value = float(ranking.fpr_at_tpr(counted, tpr))
    if min(first, second) < FEW:
        return None
    below, passed = counted.negative.cumsum(-1), counted.positive.cumsum(-1)
    own = interval_of_share(round(value * second), int(second), level=level)
    middle, reach = first * tpr, NormalDist().inv_cdf((1 + level) / 2) * (first * tpr * (1 - tpr)) ** 0.5

    def at(rank: int) -> float:
        return float(passed[int((below < rank).sum())]) / second if rank >= 1 else 0.0

    def between(rank: float) -> float:
        """Share of the OOD accepted at this order statistic; all where the threshold may lie beyond every score."""
        whole = int(rank // 1)
        return 1.0 if rank > first else at(whole) + (rank - whole) * (at(math.ceil(rank)) - at(whole))

    down = ((value - own.low) ** 2 + max(0.0, value - between(middle - reach)) ** 2) ** 0.5
    up = ((own.high - value) ** 2 + max(0.0, between(middle + reach) - value) ** 2) ** 0.5
    return Interval(value, max(0.0, value - down), min(1.0, value + up))


def _sizes(counted: Tally, level: float) -> tuple[float, float]:
    _check.share("level", level, one=False)
    if counted.negative.ndim != 1:
        raise DataError(f"counted: expected a tally without replicas, got {counted.negative.shape[0]} of them")
    return float(counted.negative.sum()), float(counted.positive.sum())


def _jackknife(
    metric: Callable[[Tally], Tensor], counted: Tally, *, stratified: bool
) -> tuple[float, tuple[float, float]]:
    """The metric, and its variance as the part of either side: samples' derivatives, centred by side or over all."""
    with torch.inference_mode(False), torch.enable_grad():
        sides = [counts.detach().clone().requires_grad_() for counts in (counted.negative, counted.positive)]
        value = metric(Tally(counted.values, *sides))
        slopes = torch.autograd.grad(value, sides)
    counts = [side.detach() for side in sides]
    sizes = [float(side.sum()) for side in counts]
    sums = [float((slope * side).sum()) for slope, side in zip(slopes, counts, strict=True)]
    means = (
        [total / size for total, size in zip(sums, sizes, strict=True)] if stratified else [sum(sums) / sum(sizes)] * 2
    )
    drawn = sizes if stratified else [sum(sizes)] * 2
    one, other = (
        float(((slope - mean) ** 2 * side).sum()) * size / (size - 1)
        for slope, side, mean, size in zip(slopes, counts, means, drawn, strict=True)
    )
    return float(value.detach()), (one, other)


def _exponential_size(value: float, first: float, second: float) -> float:
    """v (1 - v)/V for Hanley and McNeil's variance V of an AUROC v of exponential scores, as Newcombe takes it."""
    spread = (1 - value) / (2 - value) + value / (1 + value)
    return first * second / (1 + ((first + second) / 2 - 1) * spread)


def _never_empty(value: float, size: Callable[[float], float], quantile: float) -> Interval:
    """The values that this one does not refute, each with the variance it would itself have."""

    def end(limit: float) -> float:
        inside, outside = value, limit
        for _ in range(50):
            middle = (inside + outside) / 2
            held = (value - middle) ** 2 * size(middle) <= quantile**2 * middle * (1 - middle)
            inside, outside = (middle, outside) if held else (inside, middle)
        return inside

    return Interval(value, end(0.0), end(1.0))
