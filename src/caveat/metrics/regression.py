"""How good predictive distributions of a real label are: point errors and proper scores.

Each mean has its per-sample form, for intervals and streams. All results are float64. Variances, not deviations.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import _check

__all__ = [
    "gaussian_crps",
    "gaussian_crps_of_each",
    "gaussian_nll",
    "gaussian_nll_of_each",
    "mae",
    "mixture_crps",
    "mixture_crps_of_each",
    "mixture_nll",
    "mixture_nll_of_each",
    "rmse",
]

Values = Float[Tensor, " n"]
Each = Float64[Tensor, " n"]
Parts = Float[Tensor, "k n"]
One = Float64[Tensor, ""]


def rmse(mean: Values, labels: Values) -> One:
    """Root mean squared error, in the labels' units; it is the mean that makes it least.

    Formula: (mean_i (y_i - μ_i)²)^½.

    Raises
    ------
    DataError
        If there is no sample, shapes differ, or a value is not finite.

    Source: T. Gneiting, Making and evaluating point forecasts, JASA 2011, table 1 (squared error).

    Examples
    --------
    >>> rmse(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 6.0]))  # sqrt((9 + 16) / 2)
    tensor(3.5355, dtype=torch.float64)
    """
    _check.numbers({"mean": mean, "labels": labels})
    return ((mean.double() - labels.double()) ** 2).mean().sqrt()


def mae(mean: Values, labels: Values) -> One:
    """Mean absolute error, in the labels' units; less harsh on outliers than `rmse`.

    Formula: mean_i |y_i - μ_i|. Arguments and errors as `rmse`.

    Source: T. Gneiting, Making and evaluating point forecasts, JASA 2011, table 1 (absolute error).
    """
    _check.numbers({"mean": mean, "labels": labels})
    return (mean.double() - labels.double()).abs().mean()


def gaussian_nll_of_each(mean: Values, variance: Values, labels: Values) -> Each:
    """-log N(label; mean, variance) of each sample, in nats. See `gaussian_nll`."""
    _check.numbers({"mean": mean, "variance": variance, "labels": labels})
    _positive(variance)
    m, v, y = mean.double(), variance.double(), labels.double()
    return 0.5 * ((y - m) ** 2 / v + v.log() + math.log(2 * math.pi))


def gaussian_nll(mean: Values, variance: Values, labels: Values) -> One:
    """Negative log-likelihood of Gaussian predictions, in nats.

    Formula: mean -log N(y; μ, σ²). A density's: it may be negative, and labels in other units shift it by a constant
    (the logarithm of the unit).

    Raises
    ------
    DataError
        If there is no sample, shapes differ, a value is not finite, or a variance is not positive.

    Source: T. Gneiting, A. E. Raftery, Strictly proper scoring rules, JASA 2007 (logarithmic score).

    Examples
    --------
    >>> gaussian_nll(torch.zeros(1), torch.ones(1), torch.ones(1))  # (1 + log 2 pi) / 2
    tensor(1.4189, dtype=torch.float64)
    """
    return gaussian_nll_of_each(mean, variance, labels).mean()


def mixture_nll_of_each(means: Parts, variances: Parts, labels: Values, *, weights: Parts | None = None) -> Each:
    """-log Σ_k w_k N(label; mean_k, variance_k) of each sample, in nats. See `mixture_nll`."""
    m, v, w, y = _mixture(means, variances, labels, weights)
    normal = -0.5 * ((y - m) ** 2 / v + v.log() + math.log(2 * math.pi))
    return -(w.log() + normal).logsumexp(0)


def mixture_nll(means: Parts, variances: Parts, labels: Values, *, weights: Parts | None = None) -> One:
    """Negative log-likelihood of Gaussian mixtures, in nats.

    Formula: mean -log Σ_k w_k N(y; μ_k, σ_k²). Components on the first axis; equal weights by default. Not that of the
    Gaussian with the mixture's moments, which Lakshminarayanan et al. print for ensembles; that is `gaussian_nll`.

    Raises
    ------
    DataError
        As `gaussian_nll`; or if weights are not probabilities over the components.

    Source: C. M. Bishop, Mixture density networks, NCRG/94/004, 1994.
    """
    return mixture_nll_of_each(means, variances, labels, weights=weights).mean()


def gaussian_crps_of_each(mean: Values, variance: Values, labels: Values) -> Each:
    """Continuous ranked probability score of each sample. See `gaussian_crps`."""
    _check.numbers({"mean": mean, "variance": variance, "labels": labels})
    _positive(variance)
    scale = variance.double().sqrt()
    z = (labels.double() - mean.double()) / scale
    return scale * (_folded(z) - 1 / math.sqrt(math.pi))


def gaussian_crps(mean: Values, variance: Values, labels: Values) -> One:
    """Continuous ranked probability score: mean ∫ (F(t) - 1[t >= y])^2 dt, in the labels' units.

    The absolute error of a prediction without spread; less harsh on far outliers than likelihood.

    Formula: σ [z (2Φ(z) - 1) + 2φ(z) - 1/√π], z = (y - μ)/σ.

    Errors as `gaussian_nll`.

    Source: T. Gneiting, A. E. Raftery, Strictly proper scoring rules, JASA 2007, equations 20 and 21.

    Examples
    --------
    >>> gaussian_crps(torch.zeros(1), torch.ones(1), torch.zeros(1))  # (√2 - 1)/√π
    tensor(0.2337, dtype=torch.float64)
    """
    return gaussian_crps_of_each(mean, variance, labels).mean()


def mixture_crps_of_each(means: Parts, variances: Parts, labels: Values, *, weights: Parts | None = None) -> Each:
    """Continuous ranked probability score of each sample. See `mixture_crps`."""
    m, v, w, y = _mixture(means, variances, labels, weights)
    score = (w * _spread(y - m, v)).sum(0)
    for mean, variance, weight in zip(m, v, w, strict=True):  # (k, n) at a time, never (k, k, n)
        score = score - 0.5 * weight * (w * _spread(mean - m, variance + v)).sum(0)
    return score


def mixture_crps(means: Parts, variances: Parts, labels: Values, *, weights: Parts | None = None) -> One:
    """Continuous ranked probability score of Gaussian mixtures, in closed form, in the labels' units.

    Formula: Σ_k w_k A(y - μ_k, σ_k²) - ½ Σ_jk w_j w_k A(μ_j - μ_k, σ_j² + σ_k²), A(d, v) = E|N(d, v)|. Costs k² n.

    Errors as `mixture_nll`.

    Source: E. P. Grimit, T. Gneiting, V. J. Berrocal, N. A. Johnson, The continuous ranked probability score for
    circular variables and its application to mesoscale forecast ensemble verification, 2006, equation 3.
    """
    return mixture_crps_of_each(means, variances, labels, weights=weights).mean()


def _folded(z: Tensor) -> Tensor:
    """E|N(z, 1)| = z (2Φ(z) - 1) + 2φ(z)."""
    density = (-0.5 * z**2).exp() / math.sqrt(2 * math.pi)
    return z * torch.erf(z / math.sqrt(2)) + 2 * density


def _spread(distance: Tensor, variance: Tensor) -> Tensor:
    """E|N(distance, variance)|."""
    scale = variance.sqrt()
    return scale * _folded(distance / scale)


def _mixture(
    means: Tensor, variances: Tensor, labels: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and weights `(k, n)` and labels `(n,)`, checked, in float64."""
    if means.ndim != 2 or means.shape[1:] != labels.shape:
        raise DataError(
            f"means: expected (k, {len(labels)}), components first, got {tuple(means.shape)} for "
            f"{tuple(labels.shape)} labels"
        )
    _check.numbers({"means": means, "variances": variances})
    _check.finite("labels", labels)
    _positive(variances)
    if weights is None:
        weights = torch.full_like(means, 1 / len(means), dtype=torch.float64)
    else:
        _check.numbers({"means": means, "weights": weights})
        if bool((weights < 0).any()) or not torch.allclose(weights.double().sum(0), labels.double() * 0 + 1, atol=1e-4):
            raise DataError("weights: expected shares that add up to 1 over the components (the first axis)")
    return means.double(), variances.double(), weights.double(), labels.double()


def _positive(variance: Tensor) -> None:
    if bool((variance <= 0).any()):
        raise DataError(f"variance: expected positive values, got {float(variance.min()):g}: a log variance?")
