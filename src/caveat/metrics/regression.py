"""How good predictive distributions of a real label are: point errors and proper scores.

Each mean has its per-sample form, for intervals and streams. All results are float64. Variances, not deviations.
"""

import math
from collections.abc import Sequence

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
    "pinball",
    "pinball_of_each",
    "rmse",
    "sample_crps",
    "sample_crps_of_each",
    "student_crps",
    "student_crps_of_each",
    "student_nll",
    "student_nll_of_each",
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


def student_nll_of_each(freedom: Values, mean: Values, scale: Values, labels: Values) -> Each:
    """-log of a Student t's density at each label, in nats. See `student_nll`."""
    nu, z, s = _student(freedom, mean, scale, labels)
    normaliser = (nu / 2).lgamma() - ((nu + 1) / 2).lgamma() + 0.5 * (nu * math.pi).log() + s.log()
    return normaliser + (nu + 1) / 2 * (z**2 / nu).log1p()


def student_nll(freedom: Values, mean: Values, scale: Values, labels: Values) -> One:
    """Negative log-likelihood of Student t predictions, in nats: what an evidential network predicts.

    Formula: mean of log B(ν/2, ½) + ½ log ν + log s + (ν + 1)/2 log(1 + z²/ν), z = (y - μ)/s.

    Raises
    ------
    DataError
        If there is no sample, shapes differ, a value is not finite, or freedom or scale is not positive.

    Source: T. Gneiting, A. E. Raftery, Strictly proper scoring rules, JASA 2007 (logarithmic score).
    """
    return student_nll_of_each(freedom, mean, scale, labels).mean()


def student_crps_of_each(freedom: Values, mean: Values, scale: Values, labels: Values) -> Each:
    """Continuous ranked probability score of each sample. See `student_crps`."""
    from scipy.special import stdtr

    nu, z, s = _student(freedom, mean, scale, labels)
    if bool((nu <= 1).any()):
        raise DataError(f"freedom: expected more than 1, as the mean must exist, got {float(nu.min()):g}")
    below = torch.from_numpy(stdtr(nu.numpy(), z.numpy()))
    density = (-student_nll_of_each(nu, torch.zeros_like(z), torch.ones_like(z), z)).exp()
    self_distance = 2 * nu.sqrt() / (nu - 1) * (_log_beta(torch.full_like(nu, 0.5), nu - 0.5) - 2 * _log_beta(
        torch.full_like(nu, 0.5), nu / 2
    )).exp()  # fmt: skip
    return s * (z * (2 * below - 1) + 2 * density * (nu + z**2) / (nu - 1) - self_distance)


def student_crps(freedom: Values, mean: Values, scale: Values, labels: Values) -> One:
    """Continuous ranked probability score of Student t predictions, in the labels' units.

    Formula: s [z (2F(z) - 1) + 2f(z) (ν + z²)/(ν - 1) - 2√ν/(ν - 1) B(½, ν - ½)/B(½, ν/2)²]. Errors as `student_nll`;
    and if freedom is not above 1.

    Source: A. Jordan, F. Krüger, S. Lerch, Evaluating probabilistic forecasts with scoringRules, Journal of Statistical
    Software 2019, appendix A.
    """
    return student_crps_of_each(freedom, mean, scale, labels).mean()


def sample_crps_of_each(samples: Parts, labels: Values) -> Each:
    """Continuous ranked probability score of each sample. See `sample_crps`."""
    if samples.ndim != 2 or samples.shape[1:] != labels.shape or len(samples) < 2:
        raise DataError(
            f"samples: expected (k, {len(labels)}), at least two for each label, got {tuple(samples.shape)}"
        )
    _check.finite("samples", samples)
    _check.finite("labels", labels)
    ordered, count = samples.double().sort(dim=0).values, len(samples)
    # sum over pairs of |x_i - x_j|, i < j, of sorted values: each stands i times above and count - 1 - i times below
    ranks = 2 * torch.arange(count, dtype=torch.float64, device=samples.device) - (count - 1)
    pairs = (ranks[:, None] * ordered).sum(0)
    return (ordered - labels.double()).abs().mean(0) - pairs / (count * (count - 1))


def sample_crps(samples: Parts, labels: Values) -> One:
    """Continuous ranked probability score of predictions that are k equally likely values, in the labels' units.

    Formula: mean of 1/k Σ_i |x_i - y| - 1/(k (k - 1)) Σ_{i<j} |x_i - x_j|: fair, so that few values are not taken for a
    narrow prediction. It may be negative for single labels. Costs k log k for each.

    Raises
    ------
    DataError
        If there is no sample, there are fewer than two values, shapes differ, or a value is not finite.

    Source: C. Ferro, Fair scores for ensemble forecasts, QJRMS 2014, equation 3.
    """
    return sample_crps_of_each(samples, labels).mean()


def pinball_of_each(quantiles: Parts, labels: Values, *, levels: Sequence[float]) -> Each:
    """Mean pinball loss over the levels of each sample. See `pinball`."""
    if quantiles.shape != (len(levels), len(labels)) or not all(0 < level < 1 for level in levels):
        raise DataError(
            f"quantiles: expected ({len(levels)}, {len(labels)}), one row for each level in (0, 1), got "
            f"{tuple(quantiles.shape)} for {tuple(levels)}"
        )
    _check.finite("quantiles", quantiles)
    _check.finite("labels", labels)
    off = labels.double() - quantiles.double()
    share = torch.tensor(list(levels), dtype=torch.float64, device=quantiles.device)[:, None]
    return torch.maximum(share * off, (share - 1) * off).mean(0)


def pinball(quantiles: Parts, labels: Values, *, levels: Sequence[float]) -> One:
    """Mean pinball loss of predicted quantiles, levels on the first axis; in the labels' units.

    Twice its mean over all levels is the CRPS. Formula: mean of max(τ (y - q), (τ - 1) (y - q)).

    Raises
    ------
    DataError
        If there is no sample, there is not one row for each level, or a value is not finite.

    Source: R. Koenker, G. Bassett, Regression quantiles, Econometrica 1978.
    """
    return pinball_of_each(quantiles, labels, levels=levels).mean()


def _student(freedom: Tensor, mean: Tensor, scale: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Degrees of freedom, standardised labels and scale, checked, in float64."""
    _check.numbers({"freedom": freedom, "mean": mean, "scale": scale, "labels": labels})
    if bool((freedom <= 0).any()) or bool((scale <= 0).any()):
        raise DataError(
            f"freedom, scale: expected positive values, got {float(freedom.min()):g} and {float(scale.min()):g}"
        )
    return freedom.double(), (labels.double() - mean.double()) / scale.double(), scale.double()


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


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
