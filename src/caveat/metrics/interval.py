"""How uncertain a metric is: intervals that hold the truth as often as they say, also at the edges.

Near 0 and 1, with few mistakes and with rare huge losses, plain bootstrap percentiles hold it far less often
(`benchmarks/coverage.py` has the simulated figures). Where nothing holds, the answer is None: too few samples. All
count the samples as independent; pixels of one picture are not: `audits.dense` takes pictures as the samples.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import _check
from caveat.metrics._resampling import multinomial
from caveat.metrics.calibration import Bins, ece

__all__ = [
    "FEW",
    "Interval",
    "highest_share",
    "interval_of_ece",
    "interval_of_mean",
    "interval_of_share",
    "t_quantile",
    "wilson",
]

FEW = 15
"""Samples on a side, or samples that a mean rests on, below which no interval holds: with 12 they held 89 %."""

_LOW, _HIGH = 0.7, 0.15
"""Parts of the error that the ends of a calibration error may make: that of a calibrated network can only be missed at
the low end. What is left allows for gaps that are estimated."""

_HALVINGS = 12


class Interval(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


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
    return wilson(hits / count, count, NormalDist().inv_cdf((1 + level) / 2))


def highest_share(hits: int, count: int, alpha: float) -> float:
    """Exact upper bound, at confidence 1 - alpha, on a share of which `hits` of `count` were seen.

    A lower bound is 1 less that of the misses. Formula: the 1 - alpha quantile of Beta(hits + 1, count - hits).

    Source: C. Clopper, E. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 1934.

    >>> round(highest_share(0, 100, 0.05), 4)  # 1 - 0.05^(1/100)
    0.0295
    """
    from scipy.stats import beta

    return 1.0 if hits >= count else float(beta.ppf(1 - alpha, hits + 1, count - hits))


def wilson(share: float, size: int | float, quantile: float) -> Interval:
    """Wilson's interval of a share in [0, 1] that is as uncertain as that of `size` samples, which may be a fraction.

    Holds the values p with |share - p| <= quantile · (p (1 - p) / size)^½; its ends are those of [0, 1] where the share
    is.
    """
    spread = quantile * quantile / size
    centre = (share + spread / 2) / (1 + spread)
    half = (share * (1 - share) * spread + spread * spread / 4) ** 0.5 / (1 + spread)
    low = 0.0 if share == 0 else max(0.0, centre - half)
    return Interval(share, low, 1.0 if share == 1 else min(1.0, centre + half))


def interval_of_mean(losses: Float64[Tensor, " n"], *, level: float = 0.95) -> Interval | None:
    """Interval of a mean loss (negative log-likelihood, Brier score) from its per-sample values; skewness is removed.

    The mean of rare, huge losses is skewed, and so is its ratio to its own estimated spread. Hall's transformation
    takes the skewness out, Student's quantile allows for the estimated spread. None where fewer than `FEW` samples
    carry the mean, (Σ x)² / Σ x² of them: a network with three mistakes has a mean loss that nobody knows.

    Formula: with γ the skewness, g(t) = t + γ t²/(3 √n) + γ² t³/(27 n) + γ/(6 √n), the ends are
    mean - s/√n g⁻¹(± t_{n-1}).

    Raises
    ------
    DataError
        If there are no values, or one is negative, NaN or infinite.
    OptionError
        If `level` is not in ]0, 1[.

    Source: P. Hall, On the removal of skewness by transformation, JRSS B 54 (1992), section 2.

    >>> found = interval_of_mean(torch.arange(30.0).double())
    >>> [round(end, 2) for end in found] if found else None
    [14.5, 11.21, 17.79]
    """
    _check.share("level", level, one=False)
    _check.finite("losses", losses)
    if bool((losses < 0).any()):
        raise DataError(f"losses: expected values of at least 0, got {float(losses.min()):.6g}")
    total, squares, n = float(losses.sum()), float(losses.square().sum()), losses.numel()
    if total * total < FEW * squares or total == 0:
        return None
    mean = total / n
    off = losses - losses.mean()
    spread = float(off.square().mean().sqrt())
    if spread <= 1e-12 * mean:
        return Interval(mean, mean, mean)
    bend = float((off**3).mean()) / spread**3 / (3 * n**0.5)  # γ / (3 √n): g(t) = t + bend t² + bend² t³/3 + bend/2

    def inverse(t: float) -> float:
        cube = 1 + 3 * bend * (t - bend / 2)
        return t if abs(bend) < 1e-9 else (math.copysign(abs(cube) ** (1 / 3), cube) - 1) / bend

    step, t = spread / (n - 1) ** 0.5, t_quantile(n - 1, level)
    return Interval(mean, max(0.0, mean - step * inverse(t)), mean - step * inverse(-t))


def interval_of_ece(
    counted: Bins,
    *,
    generator: torch.Generator,
    metric: Callable[[Bins], Tensor] = ece,
    replicas: int = 200,
    level: float = 0.95,
) -> Interval:
    """Interval of the ECE (or `mce`, `rmsce`) from its bins: it costs the same for any number of samples.

    Noise only ever adds to a calibration error: that of a calibrated network is 0, and what is measured is not. So the
    interval holds what would not be surprising to measure: networks whose gaps between confidence and accuracy are
    the seen ones times s, for all s >= 0, are simulated, and those remain that reach the measured value in more than
    3.5 % of the cases and fall as low in more than 0.75 % (at level 0.95). The low end is 0 where a calibrated network,
    s = 0, is among them. Bins without mistakes are not taken to be without noise: their gaps are Jeffreys',
    (hits + ½)/(count + 1) less the confidence.

    Raises
    ------
    DataError
        If the bins have a leading axis.
    OptionError
        If `level` is not in ]0, 1[ or `replicas` is less than 1.

    Source: B. Efron, R. Tibshirani, An introduction to the bootstrap (1993), section 12.3 (a test turned into an
    interval); J. Bröcker, L. Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22
    (2007) (the noise of a calibrated network).
    """
    _check.share("level", level, one=False)
    _check.at_least("replicas", replicas, 1)
    if counted.count.ndim != 1:
        raise DataError(f"counted: expected one row of bins, got {tuple(counted.count.shape)}; take one row at a time")
    filled = counted.count > 0
    count, stated = counted.count[filled], (counted.confidence / counted.count.clamp(min=1))[filled]
    gap = (counted.hits[filled] + 0.5) / (count + 1) - stated
    drawn = multinomial(count, replicas=replicas, generator=generator).to(generator.device)
    value = float(metric(counted))

    def accuracy(scale: float) -> Tensor:
        return (stated + scale * gap).clamp(0, 1)

    def true(scale: float) -> float:
        return float(metric(Bins(count, count * stated, count * accuracy(scale))))

    def measured(scale: float) -> Tensor:
        hits = torch.binomial(drawn, accuracy(scale).to(drawn.device).expand_as(drawn), generator=generator).to(count)
        there = drawn.to(count)
        return metric(Bins(there, there * stated, hits))

    def reaches(scale: float) -> bool:
        return float((measured(scale) >= value * (1 - 1e-9)).double().mean()) > _LOW * (1 - level)

    def exceeds(scale: float) -> bool:
        return float((measured(scale) <= value * (1 + 1e-9)).double().mean()) <= _HIGH * (1 - level)

    low = 0.0 if reaches(0.0) else true(_first(reaches, 0.0)[0])
    high = true(_first(exceeds, 0.0)[1])
    return Interval(value, min(low, value), max(high, value))


def t_quantile(freedom: int | float, level: float) -> float:
    """Student's quantile that leaves (1 - level)/2 above it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _first(holds: Callable[[float], bool], start: float) -> tuple[float, float]:
    """Below and above the scale from which on it holds (if at all), by doubling and halving."""
    below, above = start, 1.0
    while not holds(above) and above < 2**20:
        below, above = above, 2 * above
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        below, above = (below, middle) if holds(middle) else (middle, above)
    return below, above
