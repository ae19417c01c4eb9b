"""Temperature scaling: divide the logits by one number."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check
from caveat.errors import OptionError

__all__ = ["Temperature", "fit"]

_COLDEST, _HOTTEST = 0.01, 100.0
_ROWS = 2**16
"""Rows that are held in float64 at once."""


@dataclass(frozen=True)
class Temperature:
    """Logits divided by a temperature: above 1 it makes the network less confident."""

    temperature: Float[Tensor, ""]

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """`logits / temperature`, in the dtype of the logits; the most probable class stays."""
        return logits / self.temperature.to(logits.dtype)


def fit(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    objective: Literal["nll", "ece"] = "nll",
    void: int | None = None,
) -> Temperature:
    """Find the temperature that makes held-out probabilities softmax(logits / T) fit the labels best.

    The first thing to try: one parameter, so a few hundred samples are enough, and no answer changes. Fit it on data
    that the network was not trained on. Formula: softmax(z / T). With `objective="nll"`, the negative log-likelihood is
    convex in 1/T and its minimum is found by Newton steps in a bracket, in float64, about ten passes over the logits.
    With `objective="ece"`, T is the best by the 15-bin ECE of 1 and of a geometric grid of 121 values around the
    former, from a quarter to four times it: noisier, and no proper score.

    T is kept in [0.01, 100]. The lower end is reached if the data are separable (every label has the highest logit:
    the likelihood grows without end as T → 0; where it is 1 to the last bit already, as of logits a thousand apart, T
    stays 1), the upper if the logits are no better than chance.

    Parameters
    ----------
    logits: classes on axis 1, any floating dtype.
    labels: 0 to c − 1; `void` marks those that have no label and are left out.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or nothing is labelled.
    OptionError
        If `objective` is not one of the two.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, equation 9.

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 0.0]]).repeat(4, 1)  # predicts with 95 %, is right in 3 of 4: T = 3 / log 3
    >>> round(fit(logits, torch.tensor([0, 0, 0, 1])).temperature.item(), 6)
    2.730718
    """
    if objective not in ("nll", "ece"):
        raise OptionError(f"objective: expected 'nll' or 'ece', got {objective!r}")
    flat, kept = _check.labelled_rows(logits, labels, void=void)
    inverse = _likeliest(flat, kept)
    if objective == "ece":
        inverse = _best_calibrated(flat, kept, inverse)
    return Temperature(torch.tensor(1 / inverse, dtype=torch.float64, device=logits.device))


def _likeliest(logits: Tensor, labels: Tensor) -> float:
    """The 1/T of least NLL: the root of its slope, which rises."""
    inverse = 1.0
    slope, curvature = _slope(logits, labels, inverse)
    if slope == 0:  # no temperature is better (all logits of each row equal, or all certain and right already)
        return inverse
    end = 1 / _COLDEST if slope < 0 else 1 / _HOTTEST
    if _slope(logits, labels, end)[0] * slope >= 0:
        return end
    low, high = sorted((inverse, end))
    for _ in range(200):
        newton = inverse - slope / curvature if curvature > 0 else math.inf
        # Where Newton leaves the bracket, its geometric middle: 1/T spans four decades.
        step = newton if low <= newton <= high else math.sqrt(low * high)
        if abs(step - inverse) <= 1e-10 * inverse:
            return step
        inverse = step
        slope, curvature = _slope(logits, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
    return inverse


def _slope(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative by 1/T of the summed NLL: Σ E_p[z] − z_label and Σ Var_p[z]."""
    first = second = 0.0
    for rows, label in zip(logits.split(_ROWS), labels.split(_ROWS), strict=True):
        # Counted from the label's logit, so that the slope of a sure answer keeps its sign and its digits.
        gaps = rows.double()
        gaps = gaps - gaps.gather(1, label[:, None])
        p = (gaps * inverse).softmax(dim=1)
        mean = (p * gaps).sum(dim=1, keepdim=True)
        first += float(mean.sum())
        second += float((p * (gaps - mean) ** 2).sum())
    return first, second


def _best_calibrated(logits: Tensor, labels: Tensor, centre: float) -> float:
    factors = torch.logspace(-2, 2, 121, base=2, dtype=torch.float64).tolist()
    grid = [1.0, *(min(max(centre * f, 1 / _HOTTEST), 1 / _COLDEST) for f in factors)]
    return min(grid, key=lambda inverse: _ece(logits, labels, inverse))


def _ece(logits: Tensor, labels: Tensor, inverse: float, *, bins: int = 15) -> float:
    """Expected calibration error as in `metrics.calibration` (a package that this one must not know)."""
    edges = torch.arange(1, bins, device=logits.device, dtype=torch.float64) / bins
    gap = edges.new_zeros(bins)
    for rows, label in zip(logits.split(_ROWS), labels.split(_ROWS), strict=True):
        confidence, predicted = (rows.double() * inverse).softmax(dim=1).max(dim=1)
        gap.index_add_(0, torch.bucketize(confidence, edges), (predicted == label).double() - confidence)
    return float(gap.abs().sum()) / labels.numel()
