"""How good predicted intervals and quantiles of a real label are: coverage, width, calibration.

All results are float64.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from caveat.errors import DataError, OptionError
from caveat.metrics import _check

__all__ = [
    "calibration_curve",
    "calibration_error",
    "covered",
    "interval_coverage",
    "interval_score",
    "interval_score_of_each",
    "interval_width",
]

Values = Float[Tensor, " n"]
Each = Float64[Tensor, " n"]
One = Float64[Tensor, ""]


def covered(lower: Values, upper: Values, labels: Values) -> Bool[Tensor, " n"]:
    """Where the label lies in [lower, upper]. See `interval_coverage`."""
    _check.numbers({"lower": lower, "upper": upper, "labels": labels}, infinite=("lower", "upper"))
    _ordered(lower, upper)
    return (lower <= labels) & (labels <= upper)


def interval_coverage(lower: Values, upper: Values, labels: Values) -> One:
    """Share of the labels inside their interval, ends included; should be what was asked for.

    Formula: mean_i 1[l_i <= y_i <= u_i], in [0, 1].

    Raises
    ------
    DataError
        If there is no sample, shapes differ, a label is not finite, or an interval's ends are crossed.

    Source: A. Khosravi et al., Comprehensive review of neural network-based prediction intervals, IEEE Transactions on
    Neural Networks 2011 (PICP).

    Examples
    --------
    >>> interval_coverage(torch.zeros(2), torch.ones(2), torch.tensor([1.0, 1.5]))
    tensor(0.5000, dtype=torch.float64)
    """
    return covered(lower, upper, labels).double().mean()


def interval_width(lower: Values, upper: Values) -> One:
    """Mean width of the intervals, in the labels' units; of two with the right coverage the narrower is better.

    Formula: mean_i (u_i - l_i).

    Source: A. Khosravi et al., Comprehensive review of neural network-based prediction intervals, IEEE Transactions on
    Neural Networks 2011 (MPIW).
    """
    _check.numbers({"lower": lower, "upper": upper}, infinite=("lower", "upper"))
    if not lower.numel():
        raise DataError("lower, upper: expected at least one interval, got none")
    _ordered(lower, upper)
    return (upper.double() - lower.double()).mean()


def interval_score_of_each(lower: Values, upper: Values, labels: Values, *, error: float = 0.05) -> Each:
    """Interval score of each sample. See `interval_score`."""
    if not 0 < error < 1:
        raise OptionError(f"error: expected a share in (0, 1), got {error}")
    _check.numbers({"lower": lower, "upper": upper, "labels": labels})
    _ordered(lower, upper)
    low, high, y = lower.double(), upper.double(), labels.double()
    return (high - low) + (2 / error) * ((low - y).clamp_min(0) + (y - high).clamp_min(0))


def interval_score(lower: Values, upper: Values, labels: Values, *, error: float = 0.05) -> One:
    """Interval score: width, plus 2/error times how far the label lies outside; in the labels' units.

    Proper: least on average for the true central interval that misses in a share `error`. Formula:
    mean (u - l) + (2/error) (max(0, l - y) + max(0, y - u)).

    Errors as `interval_coverage`; OptionError if `error` is not in (0, 1).

    Source: T. Gneiting, A. E. Raftery, Strictly proper scoring rules, JASA 2007, equation 43.
    """
    return interval_score_of_each(lower, upper, labels, error=error).mean()


def calibration_curve(pit: Values, *, points: int = 99) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """Expected and observed share of labels below each predicted quantile.

    `pit` is the predicted cumulative probability at each label (`scores.regression.cdf`). Levels are i/(points + 1).

    Raises
    ------
    DataError
        If there is no sample, or a value is not in [0, 1].
    OptionError
        If `points` is less than 1.

    Source: V. Kuleshov, N. Fenner, S. Ermon, Accurate uncertainties for deep learning using calibrated regression, ICML
    2018.
    """
    _check.at_least("points", points, 1)
    _check.finite("pit", pit)
    if bool(((pit < 0) | (pit > 1)).any()):
        raise DataError(f"pit: expected probabilities in [0, 1], got [{float(pit.min()):g}, {float(pit.max()):g}]")
    levels = torch.arange(1, points + 1, device=pit.device, dtype=torch.float64) / (points + 1)
    ordered = pit.detach().double().sort().values
    return levels, torch.searchsorted(ordered, levels, right=True).double() / len(ordered)


def calibration_error(pit: Values, *, points: int = 99) -> One:
    """Mean distance of the calibration curve from the diagonal; 0 if every quantile is right.

    Formula: mean_j |p_j - share of labels below their p_j-quantile|, in [0, ½[. Arguments and errors as
    `calibration_curve`.

    Source: V. Kuleshov, N. Fenner, S. Ermon, Accurate uncertainties for deep learning using calibrated regression, ICML
    2018 (there squared).

    Examples
    --------
    >>> calibration_error(torch.full((5,), 0.5), points=3)  # levels .25 .5 .75, observed 0 1 1
    tensor(0.3333, dtype=torch.float64)
    """
    expected, observed = calibration_curve(pit, points=points)
    return (expected - observed).abs().mean()


def _ordered(lower: Tensor, upper: Tensor) -> None:
    if not bool((lower <= upper).all()):
        raise DataError("lower, upper: expected lower <= upper for every sample; sort quantiles that cross")
