"""Histogram binning: for each class, the frequency of the class among samples of like probability."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check
from caveat.calibration._odds import log_odds, normalised
from caveat.errors import OptionError

__all__ = ["Histogram", "fit"]


@dataclass(frozen=True)
class Histogram:
    """One step function a class, from log-odds to probability; the most probable class may change."""

    edges: Float[Tensor, "c edges"]
    """Inner edges of the bins, ascending; a value on an edge belongs to the bin above."""
    probs: Float[Tensor, "c bins"]
    """Probability in each bin, in (0, 1)."""

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """Log of the bins' values divided by their sum over the classes, in the dtype of the logits; no gradient."""
        bins = torch.searchsorted(self.edges.double(), log_odds(logits.detach()), right=True)
        return normalised(self.probs.gather(1, bins), logits)


def fit(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    bins: int | None = None,
    prior: float = 1.0,
    void: int | None = None,
) -> Histogram:
    """Sort the samples into bins by the probability of each class and take the frequencies of the class in them.

    It assumes nothing, not even that the curve rises, and pays for it in resolution: samples of one bin get one answer
    (so it has no gradient, and its NLL can be above the network's). With many classes most bins hold the certain
    "not this one" and few the rest: prefer `isotonic`. Formula: for class k and bin B of equal count (ties stay
    together)

        (#{i in B: y_i = k} + prior · π_k) / (#B + prior),   π_k = (n_k + 1) / (n + c),

    divided by the sum over the classes. Samples are ordered by log p / (1 - p), which tells confident predictions
    apart.

    Parameters
    ----------
    logits: classes on axis 1, any floating dtype.
    labels: 0 to c - 1; `void` marks those that have no label and are left out.
    bins: per class; by default twice the number of classes, at least 15, but no more than hold 20 samples each.
    prior: pseudo-samples in each bin that have the class frequencies of the whole, so that no probability is 0.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or nothing is labelled.
    OptionError
        If `bins` is not between 1 and the number of labelled samples, or `prior` is not positive.

    Source: B. Zadrozny and C. Elkan, Obtaining calibrated probability estimates from decision trees and naive Bayesian
    classifiers, ICML 2001, sections 3 (smoothing to the base rate) and 4 (bins of equal count).

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4)  # predicts with 88 %, is right in 3 of 4
    >>> g = fit(logits, torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]), bins=2, prior=1e-9)
    >>> g(logits[:1]).softmax(dim=1)
    tensor([[0.7500, 0.2500]])
    """
    if not prior > 0:
        raise OptionError(f"prior: expected a positive number of pseudo-samples, got {prior}")
    rows, kept = _check.labelled_rows(logits, labels, void=void)
    n, c = rows.shape
    bins = max(1, min(max(15, 2 * c), n // 20)) if bins is None else bins
    if not 1 <= bins <= n:
        raise OptionError(f"bins: expected 1 to {n} (the number of labelled samples), got {bins}")
    odds = log_odds(rows)
    ordered = odds.sort(dim=1).values
    above = torch.arange(1, bins, device=odds.device) * n // bins
    edges = (ordered[:, above - 1] + ordered[:, above]) / 2
    # One cell for each class and bin.
    cell = torch.searchsorted(edges, odds, right=True) + bins * torch.arange(c, device=odds.device)[:, None]
    held = cell.flatten().bincount(minlength=c * bins).reshape(c, bins)
    hits = cell.T.gather(1, kept[:, None]).flatten().bincount(minlength=c * bins).reshape(c, bins)
    rate = (kept.bincount(minlength=c).double() + 1) / (n + c)
    return Histogram(edges, (hits + prior * rate[:, None]) / (held + prior))
