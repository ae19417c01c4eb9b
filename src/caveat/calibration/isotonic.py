"""Isotonic regression: for each class, the rising curve from said to true probability that fits best."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check
from caveat.calibration._odds import log_odds, normalised
from caveat.errors import DataError, OptionError

__all__ = ["Isotonic", "fit"]


@dataclass(frozen=True)
class Isotonic:
    """One rising curve a class, from log-odds to probability; the most probable class may change."""

    odds: Float[Tensor, "c points"]
    """Breakpoints, ascending in each row; the last is repeated where a class has fewer than another."""
    probs: Float[Tensor, "c points"]
    """Probability at each, in (0, 1), ascending; straight lines between, constant outside."""

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """Log of the curves' values divided by their sum over the classes, in the dtype of the logits."""
        odds, points = log_odds(logits), self.odds.double()
        after = torch.searchsorted(points, odds.detach()).clamp(1, points.shape[1] - 1)
        x0, x1 = points.gather(1, after - 1), points.gather(1, after)
        y0, y1 = self.probs.gather(1, after - 1), self.probs.gather(1, after)
        width = torch.where(x1 > x0, x1 - x0, 1.0)
        return normalised(y0 + (y1 - y0) * ((odds - x0) / width).clamp(0, 1), logits)


def fit(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    prior: float = 1.0,
    void: int | None = None,
) -> Isotonic:
    """Fit, class by class, the rising curve from the network's probability to the frequency of the class.

    For networks whose miscalibration has no simple form, and with a thousand samples or more; fewer give coarse steps.
    Formula: for each class k the rising f that minimises Σ_i (f(p_ik) - [y_i = k])², by pooling adjacent violators in
    O(n log n); it divides the c values by their sum. What is regressed on is log p / (1 - p), which is the same curve
    but tells confident predictions apart. After the division nothing is optimal: the NLL can be above the network's.

    A probability of 0 would be an infinite loss: `prior` pseudo-samples say so, of which 1/c is of the class, at the
    lowest odds, and the rest is not, at the highest. The curve still rises.

    Parameters
    ----------
    logits: classes on axis 1, any floating dtype.
    labels: 0 to c - 1; `void` marks those that have no label and are left out.
    prior: weight of the pseudo-samples, positive.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, nothing is labelled, or all labels are
        of one class.
    OptionError
        If `prior` is not positive.

    Source: B. Zadrozny and C. Elkan, Transforming classifier scores into accurate multiclass probability estimates, KDD
    2002, sections 3 (isotonic regression) and 5 (one against the rest, normalised).

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4)  # predicts with 88 %, is right in 3 of 4
    >>> g = fit(logits, torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]), prior=1e-9)
    >>> g(logits[:1]).softmax(dim=1)
    tensor([[0.7500, 0.2500]])
    """
    if not prior > 0:
        raise OptionError(f"prior: expected a positive number of pseudo-samples, got {prior}")
    rows, kept = _check.labelled_rows(logits, labels, void=void)
    if bool((kept == kept[0]).all()):
        raise DataError(f"labels: expected at least two classes, got {len(kept)} of class {int(kept[0])} only")
    odds, truth = log_odds(rows).cpu().numpy(), kept.cpu().numpy()
    curves = [_curve(x, truth == k, prior, 1 / len(odds)) for k, x in enumerate(odds)]
    longest = max(len(x) for x, _ in curves)
    x, y = (np.stack([np.pad(c[side], (0, longest - len(c[side])), "edge") for c in curves]) for side in (0, 1))
    return Isotonic(torch.from_numpy(x).to(logits.device), torch.from_numpy(y).to(logits.device))


def _curve(odds: np.ndarray, hits: np.ndarray, prior: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Breakpoints and values of the rising curve, with the pseudo-samples at its ends; at least two points."""
    from sklearn.isotonic import IsotonicRegression

    x = np.concatenate((odds, [odds.min(), odds.max()]))
    y = np.concatenate((hits.astype(np.float64), [1.0, 0.0]))
    weights = np.concatenate((np.ones(len(odds)), [prior * share, prior * (1 - share)]))
    fitted = IsotonicRegression().fit(x, y, sample_weight=weights)
    points, values = fitted.X_thresholds_, fitted.y_thresholds_
    return (np.repeat(points, 2), np.repeat(values, 2)) if len(points) == 1 else (points, values)
