"""How uncertain a metric is: bootstrap intervals.

All count the samples as independent. Pixels of one picture are not, so intervals of pixel metrics are too narrow.
"""

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import _check
from caveat.metrics._resampling import multinomial
from caveat.metrics.calibration import Bins, ece
from caveat.metrics.tally import Tally, resample

__all__ = ["Interval", "interval", "interval_of_ece", "interval_of_mean", "interval_of_share", "intervals"]

_DRAWS = 2**16
"""A mean of more samples than this is resampled with this many, and the spread is scaled by the root of the ratio."""


class Interval(NamedTuple):
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


def interval(
    metric: Callable[[Tally], Tensor],
    counted: Tally,
    *,
    generator: torch.Generator,
    replicas: int = 200,
    level: float = 0.95,
    stratified: bool = True,
) -> Interval:
    """Percentile bootstrap of a metric of a tally.

    About 0.1 to 0.3 s for 200 replicas, however many samples were counted (`tally.resample`); `intervals` has
    several metrics at that price.

    Parameters
    ----------
    metric: from `OF_RANKING` or `OF_SELECTIVE`, or `functools.partial` of one.
    stratified: True for in-distribution against OOD; False for correct against wrong answers (see `tally.resample`).

    Raises
    ------
    DataError
        As the metric.
    OptionError
        If `level` is not in ]0, 1[ or `replicas` is less than 1.

    Source: B. Efron, R. Tibshirani, An introduction to the bootstrap (1993), chapter 13.

    Examples
    --------
    >>> from caveat.metrics.ranking import auroc
    >>> from caveat.metrics.tally import tally_sets
    >>> apart = tally_sets(torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.9]))
    >>> interval(auroc, apart, generator=torch.Generator().manual_seed(0))
    Interval(value=1.0, low=1.0, high=1.0)
    """
    found = intervals(
        {"metric": metric}, counted, generator=generator, replicas=replicas, level=level, stratified=stratified
    )
    return found["metric"]


def intervals(
    metrics: Mapping[str, Callable[[Tally], Tensor]],
    counted: Tally,
    *,
    generator: torch.Generator,
    replicas: int = 200,
    level: float = 0.95,
    stratified: bool = True,
) -> dict[str, Interval]:
    """`interval` of several metrics from the same replicas, by name: `intervals(OF_RANKING, counted, generator=g)`."""
    _check.share("level", level, one=False)
    drawn = resample(counted, replicas=replicas, generator=generator, stratified=stratified)
    return {name: _percentiles(metric(counted), metric(drawn), level) for name, metric in metrics.items()}


def interval_of_mean(
    values: Float64[Tensor, " n"], *, generator: torch.Generator, replicas: int = 200, level: float = 0.95
) -> Interval:
    """Percentile bootstrap of a mean: accuracy, negative log-likelihood or Brier score from their per-sample values.

    Of more than 65,536 values that many are drawn in each replica and the deviations scaled by (65,536/n)^½.

    Raises
    ------
    DataError
        If there are no values, or one is NaN or infinite.
    OptionError
        As `interval`.
    """
    _check.share("level", level, one=False)
    _check.at_least("replicas", replicas, 1)
    _check.finite("values", values)
    value, n = values.mean(), values.numel()
    size = min(n, _DRAWS)
    drawn = torch.stack(
        [
            values[torch.randint(n, (size,), generator=generator, device=generator.device).to(values.device)].mean()
            for _ in range(replicas)
        ]
    )
    return _percentiles(value, value + (drawn - value) * (size / n) ** 0.5, level)


def interval_of_share(hits: int, count: int, *, level: float = 0.95) -> Interval:
    """Wilson's interval of a share of which `hits` of `count` were seen; never empty, also at 0 and 1.

    Raises
    ------
    DataError
        If `count` is not positive, or `hits` not in [0, count].
    OptionError
        If `level` is not in ]0, 1[.

    Source: E. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    >>> [round(end, 4) for end in interval_of_share(0, 10)]
    [0.0, 0.0, 0.2775]
    """
    _check.share("level", level, one=False)
    if not 0 <= hits <= count or count < 1:
        raise DataError(f"hits: expected 0 to {count} of at least one sample, got {hits}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    return Interval(share, low, 1.0 if hits == count else min(1.0, centre + half))


def interval_of_ece(
    counted: Bins,
    *,
    generator: torch.Generator,
    metric: Callable[[Bins], Tensor] = ece,
    replicas: int = 200,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of the ECE (or `mce`, `rmsce`) from its bins: it costs the same for any number of samples.

    Samples are redrawn as (bin, right or wrong); their confidence is taken as the mean of the bin. Noise only ever
    adds to a calibration error, so plain percentiles lie above the truth (of a calibrated network always: measured).
    Hence the low end is value − q(N), where N is the same norm of the resampled bins' noise alone: valid by the
    triangle inequality; the high end is the percentile of the replicas, moved back by their mean's rise. In
    simulations this held the truth in at least 95 % of the cases, at 1.2 to 1.6 times the width.

    Raises
    ------
    DataError
        If the bins have a leading axis.
    OptionError
        As `interval`.
    """
    _check.share("level", level, one=False)
    _check.at_least("replicas", replicas, 1)
    if counted.count.ndim != 1:
        raise DataError(f"counted: expected one row of bins, got {tuple(counted.count.shape)}; take one row at a time")
    cells = torch.cat((counted.hits, counted.count - counted.hits))
    hits, misses = multinomial(cells, replicas=replicas, generator=generator).chunk(2, dim=-1)
    count, before = hits + misses, counted.count.clamp(min=1)
    value, upper = metric(counted), (1 + level) / 2
    drawn = metric(Bins(count, count * counted.confidence / before, hits))
    noise = metric(Bins(count, count * counted.hits / before, hits))
    low = (value - noise.quantile(upper)).clamp(min=0)
    high = value + (drawn.quantile(upper) - drawn.mean()).clamp(min=0)
    return Interval(float(value), float(low), float(high))


def _percentiles(value: Tensor, drawn: Tensor, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = drawn.quantile(drawn.new_tensor([tail, 1 - tail])).tolist()
    return Interval(float(value), low, high)
