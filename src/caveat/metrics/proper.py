"""Proper scoring rules and accuracy: how right the probabilities are, sample by sample and on the mean, in float64.

Each mean has its per-sample form, for intervals and for streams: keep the sum and the count.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from caveat.metrics import _check
from caveat.metrics.calibration import Bins, classwise_bins

__all__ = [
    "BrierParts",
    "accuracy",
    "brier",
    "brier_decomposition",
    "brier_of_each",
    "brier_parts",
    "nll",
    "nll_of_each",
    "right_of_each",
]


class BrierParts(NamedTuple):
    """brier = calibration − refinement + uncertainty, to float64 precision."""

    calibration: Float64[Tensor, ""]
    """Squared distance of forecast and frequency, bin by bin; 0 is calibrated."""
    refinement: Float64[Tensor, ""]
    """How far the bins' frequencies are from the mean frequency (resolution), and the residual; more is better."""
    uncertainty: Float64[Tensor, ""]
    """Σ_k f_k (1 - f_k) of the class frequencies f: the score of always forecasting them."""


def nll_of_each(
    logits: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, void: int | None = None
) -> Float64[Tensor, " k"]:
    """−log softmax(logits)_label of each labelled sample or pixel, in nats. See `nll`."""
    valid = _check.labelled(logits, labels, name="logits", void=void)
    _check.finite("logits", logits)
    flat = _check.rows(logits.detach(), valid).double()
    return flat.logsumexp(dim=1) - flat.gather(1, labels[valid].long()[:, None]).squeeze(1)


def nll(
    logits: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, void: int | None = None
) -> Float64[Tensor, ""]:
    """Negative log-likelihood (log loss), from logits in float64, in nats.

    From logits, so that a confident mistake costs what it costs and not what float32 rounds it to. Formula: mean_i −log
    softmax(z_i)[y_i], in [0, ∞[; log c is an even guess. For a mean of several networks' probabilities pass its
    logarithm. It weighs calibration and sharpness together, and single confident mistakes heavily.

    Parameters
    ----------
    logits: classes on axis 1, finite.
    labels: 0 to c − 1; `void` marks those that have no label and are left out.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or nothing is labelled.

    Source: I. J. Good, Rational decisions, Journal of the Royal Statistical Society B 14 (1952).

    Examples
    --------
    >>> score = nll(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]), torch.tensor([0, 1]))  # (log 2 + 1000) / 2
    >>> round(score.item(), 6)
    500.346574
    """
    return nll_of_each(logits, labels, void=void).mean()


def brier_of_each(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, void: int | None = None
) -> Float64[Tensor, " k"]:
    """Σ_k (p_k − 1[label = k])² of each labelled sample or pixel. See `brier`."""
    valid = _check.labelled(probs, labels, name="probs", void=void)
    _check.probabilities(probs)
    off = _check.rows(probs.detach(), valid).to(torch.float64, copy=True)
    index = labels[valid].long()[:, None]
    return off.scatter_add_(1, index, off.new_full(index.shape, -1.0)).square_().sum(dim=1)


def brier(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, void: int | None = None
) -> Float64[Tensor, ""]:
    """Brier score: mean squared distance of the probabilities to the one-hot label, summed over the classes.

    Bounded, so that a single sample does not decide it. Formula: mean_i Σ_k (p_ik − 1[y_i = k])², in [0, 2] (half of it
    is a convention for two classes); 1 − 1/c is an even guess.

    Raises
    ------
    DataError
        If `probs` are not probabilities, shapes do not match, a label is out of range, or nothing is labelled.

    Source: G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950),
    eq. 2.

    Examples
    --------
    >>> score = brier(torch.tensor([[0.8, 0.2], [0.5, 0.5]]), torch.tensor([0, 1]))  # (0.08 + 0.5) / 2
    >>> round(score.item(), 6)
    0.29
    """
    return brier_of_each(probs, labels, void=void).mean()


def right_of_each(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, void: int | None = None
) -> Float64[Tensor, " k"]:
    """1 where the most probable class is the label, else 0, of each labelled sample or pixel. See `accuracy`."""
    valid = _check.labelled(probs, labels, name="probs", void=void)
    _check.probabilities(probs)
    return (probs.argmax(dim=1) == labels)[valid].double()


def accuracy(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, void: int | None = None
) -> Float64[Tensor, ""]:
    """Share of the samples (or pixels) whose most probable class is the label.

    Of equal highest probabilities the first class counts. Formula: mean_i 1[argmax_k p_ik = y_i], in [0, 1]. Arguments
    and errors as `brier`.

    Source: the zero-one loss of any textbook: T. Hastie et al., The elements of statistical learning, section 7.2.
    """
    return right_of_each(probs, labels, void=void).mean()


def brier_decomposition(
    probs: Float[Tensor, "n c *pixels"], labels: Int[Tensor, "n *pixels"], *, bins: int = 15, void: int | None = None
) -> BrierParts:
    """The Brier score in three parts: calibration − refinement + uncertainty.

    Class by class, the probabilities are counted in equal-width bins m with n_m samples, mean forecast p̄_m and
    frequency f̄_m of the class; then, summed over the classes,

    calibration = Σ_m n_m/n (p̄_m − f̄_m)²,  uncertainty = f̄ (1 − f̄),
    refinement  = Σ_m n_m/n (f̄_m − f̄)² − (variance of p within bins) + 2 (covariance of p and label within bins).

    Murphy's terms are exact only if all forecasts of a bin are equal; the two within-bin terms, which are put with
    the refinement, make the sum exact for any bins. They vanish as the bins get finer. Arguments and errors as
    `brier`.

    Source: A. H. Murphy, A new vector partition of the probability score, Journal of Applied Meteorology 12 (1973), eq.
    7; D. B. Stephenson, C. A. S. Coelho, I. T. Jolliffe, Two extra components in the Brier score decomposition, Weather
    and Forecasting 23 (2008).
    """
    return brier_parts(classwise_bins(probs, labels, bins=bins, void=void), brier(probs, labels, void=void))


def brier_parts(counted: Bins, score: Float64[Tensor, ""]) -> BrierParts:
    """`brier_decomposition` from `classwise_bins` and the Brier score of the same data, which both can be streamed."""
    n = counted.count.sum(-1)
    distance = (counted.hits - counted.confidence) ** 2 / counted.count.clamp(min=1)
    calibration = (distance.sum(-1) / n).sum()
    frequency = counted.hits.sum(-1) / n
    uncertainty = (frequency * (1 - frequency)).sum()
    return BrierParts(calibration, calibration + uncertainty - score, uncertainty)
