"""Conformalised quantile regression: intervals that hold the label as often as was asked for."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.calibration import _check
from caveat.calibration._rank import conformal_quantile

__all__ = ["CQR", "fit", "nonconformity"]

Ends = Float[Tensor, " n"]


@dataclass(frozen=True)
class CQR:
    """Moves both ends of an interval outwards by a fixed amount; inwards if it is negative."""

    quantile: Float[Tensor, ""]
    """By how much, in the labels' units, float64; infinite where the samples were too few."""

    def __call__(self, lower: Ends, upper: Ends) -> tuple[Ends, Ends]:
        """The corrected ends: computed in float64, in the dtype of `lower`, rounded outwards to it.

        So a label that lies exactly on the end of its interval stays inside in any dtype. Intervals that would turn
        inside out shrink to their middle; they hold no label either way.
        """
        low, high = lower.double() - self.quantile, upper.double() + self.quantile
        middle = (lower.double() + upper.double()) / 2
        crossed = low > high
        low, high = torch.where(crossed, middle, low), torch.where(crossed, middle, high)
        return -_rounded_up(-low, lower.dtype), _rounded_up(high, lower.dtype)


def fit(lower: Ends, upper: Ends, labels: Ends, *, error: float = 0.1) -> CQR:
    """Correct predicted intervals so that they miss the label in a share `error` at most.

    For any lower and upper end: of quantile regression, of an ensemble, of one Gaussian. As narrow where the network is
    certain as its quantiles are, and as wide where it is not. On samples that the network was not trained on and that
    are exchangeable with those to come,

        1 - error ≤ P(label in interval) ≤ 1 - error + 1/(n + 1)    (the upper bound if no two scores are equal).

    Formula: E_i = max(lower_i - y_i, y_i - upper_i); q the ⌈(n + 1)(1 - error)⌉-th smallest; [lower - q, upper + q].
    Differences are rounded up and ends outwards, so that the lower bound holds for tied labels too.

    Raises
    ------
    DataError
        If there is no sample, shapes differ, or a value is not finite.
    OptionError
        If `error` is not in (0, 1).

    Source: Y. Romano, E. Patterson, E. Candès, Conformalized quantile regression, NeurIPS 2019, equations 5 to 8,
    theorem 1.

    Examples
    --------
    >>> g = fit(torch.zeros(4), torch.ones(4), torch.tensor([0.5, 1.25, -0.5, 3.0]), error=0.4)  # the 3rd of 4
    >>> [end.item() for end in g(torch.zeros(1), torch.ones(1))]
    [-0.5, 1.5]
    """
    return CQR(conformal_quantile(nonconformity(lower, upper, labels), error))


def nonconformity(lower: Ends, upper: Ends, labels: Ends) -> Ends:
    """By how much each interval misses its label, negative inside: E of `fit`, float64.

    Raises
    ------
    DataError
        As `fit`.
    """
    _check.real(labels, {"lower": lower, "upper": upper})
    y = labels.double()
    return torch.maximum(_above(lower.double(), y), _above(y, upper.double()))


def _above(high: Tensor, low: Tensor) -> Tensor:
    """`high - low` in float64, rounded up, so that `high` minus it is `low` or less whatever the rounding then."""
    difference = high - low
    back = difference - high
    lost = (high - (difference - back)) - (low + back)  # Knuth's two-sum: what rounding took, exactly
    return torch.where(lost > 0, torch.nextafter(difference, difference.new_tensor(math.inf)), difference)


def _rounded_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The least number of this dtype that is not below the value."""
    cast = values.to(dtype)
    return torch.where(cast.double() < values, torch.nextafter(cast, cast.new_tensor(math.inf)), cast)
