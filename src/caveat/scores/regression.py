"""What the draws of a regression network say together: a Gaussian mixture, and whence its variance comes.

A draw (a member of an ensemble, a sample of a posterior) gives every sample a Gaussian; with equal weights they are a
mixture. Components stand on the first axis: `(s, n)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caveat.errors import DataError, OptionError
from caveat.types import Score

__all__ = [
    "LOWEST",
    "Gaussians",
    "Mixture",
    "Split",
    "aleatoric",
    "cdf",
    "entropy_bound",
    "epistemic",
    "from_densities",
    "from_gaussians",
    "interval",
    "log_variance",
    "quantile",
    "split",
    "total",
]

LOWEST, HIGHEST = -14.0, 14.0
# Of the log variance: deviations between 0.0009 and 1097, in the units of the labels (standardise them).


@dataclass(frozen=True)
class Gaussians:
    """One Gaussian for each draw and sample."""

    mean: Float[Tensor, "*s n"]
    variance: Float[Tensor, "*s n"]


@dataclass(frozen=True)
class Mixture:
    """One mixture of k Gaussians for each sample."""

    weight: Float[Tensor, "k n"]
    """Sums to 1 over the components."""
    mean: Float[Tensor, "k n"]
    variance: Float[Tensor, "k n"]


@dataclass(frozen=True)
class Split:
    """Mean and variance of the mixture; total = aleatoric + epistemic."""

    mean: Float[Tensor, " n"]
    aleatoric: Float[Tensor, " n"]
    """Mean of the draws' variances: noise that more data would not take away."""
    epistemic: Float[Tensor, " n"]
    """Variance of the draws' means: uncertainty about which network is right."""

    @property
    def total(self) -> Float[Tensor, " n"]:
        """Variance of the mixture."""
        return self.aleatoric + self.epistemic


def log_variance(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Network output to s = log σ², kept smoothly in [-14, 14]: within [-10, 10] it changes by less than 0.02.

    So that neither exp(-s) nor a gradient is ever infinite, and a gradient is nowhere exactly zero.
    """
    below = HIGHEST - functional.softplus(HIGHEST - raw)
    return LOWEST + functional.softplus(below - LOWEST)


def from_gaussians(outputs: Float[Tensor, "*s n 2"]) -> Gaussians:
    """Mean and variance from the outputs (μ, s) of networks trained by `heteroscedastic` or `beta_nll`.

    Raises
    ------
    DataError
        If the last axis has another length than 2.
    """
    _check_last(outputs, 2)
    return Gaussians(outputs[..., 0], log_variance(outputs[..., 1]).exp())


def from_densities(outputs: Float[Tensor, "*s n k3"]) -> tuple[Mixture, Gaussians]:
    """Mixture of all draws' components, and each draw's own mean and variance (for `split`).

    `outputs` are those of networks trained by `mixture_density`: K logits of the weights, K means, K log variances.

    Raises
    ------
    DataError
        If the last axis is no multiple of 3.
    """
    _check_last(outputs, 3 * max(1, outputs.shape[-1] // 3))
    draws = outputs if outputs.ndim == 3 else outputs[None]
    logits, mean, raw = (part.movedim(-1, 1) for part in draws.chunk(3, dim=-1))  # (s, k, n)
    weight, variance = logits.softmax(dim=1), log_variance(raw).exp()
    centre = (weight * mean).sum(1)
    own = Gaussians(centre, (weight * (variance + (mean - centre[:, None]) ** 2)).sum(1))
    mixture = Mixture((weight / len(draws)).flatten(0, 1), mean.flatten(0, 1), variance.flatten(0, 1))
    return mixture, own if outputs.ndim == 3 else Gaussians(own.mean[0], own.variance[0])


def split(mean: Float[Tensor, "s n"], variance: Float[Tensor, "s n"]) -> Split:
    """Mean and variance of an equal mixture, its variance split into noise and uncertainty.

    Formula: μ* = mean μ_i;  σ*² = mean σ_i² (aleatoric) + mean (μ_i - μ*)² (epistemic); in the labels' units squared.

    Source: Lakshminarayanan et al., NeurIPS 2017, section 2.4; the split: Kendall and Gal, NeurIPS 2017, equation 9.

    Raises
    ------
    DataError
        If there is no draw, shapes differ, a number is not finite, or a variance is negative.

    Example
    -------
    >>> found = split(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
    >>> found.mean.item(), found.aleatoric.item(), found.epistemic.item(), found.total.item()
    (1.0, 2.0, 1.0, 3.0)
    """
    if not len(mean):
        raise DataError("mean: expected (s, n) with at least one draw, got none")
    if mean.shape != variance.shape:
        raise DataError(f"variance: expected one for each mean {tuple(mean.shape)}, got {tuple(variance.shape)}")
    if not bool((torch.isfinite(mean) & torch.isfinite(variance)).all()):
        raise DataError("mean, variance: expected finite numbers, got NaN or infinity: did the training diverge?")
    if bool((variance < 0).any()):
        raise DataError(f"variance: expected no negative value, got {float(variance.min()):g}: exp of a log variance?")
    centre = mean.mean(0)
    return Split(centre, variance.mean(0), ((mean - centre) ** 2).mean(0))


def total(mean: Float[Tensor, "s n"], variance: Float[Tensor, "s n"]) -> Score:
    """Total variance: how wide the answer is, for whatever reason.

    Formula: mean σ_i² + mean (μ_i - μ*)². Source: Lakshminarayanan et al., NeurIPS 2017, section 2.4.
    """
    return split(mean, variance).total


def aleatoric(mean: Float[Tensor, "s n"], variance: Float[Tensor, "s n"]) -> Score:
    """Aleatoric variance: noise in the labels that no data would take away.

    Formula: mean σ_i². Source: Kendall and Gal, NeurIPS 2017, equation 9.
    """
    return split(mean, variance).aleatoric


def epistemic(mean: Float[Tensor, "s n"], variance: Float[Tensor, "s n"]) -> Score:
    """Epistemic variance: disagreement of the draws, large where there were no data.

    Formula: mean (μ_i - μ*)². Source: Kendall and Gal, NeurIPS 2017, equation 9.
    """
    return split(mean, variance).epistemic


def entropy_bound(mean: Float[Tensor, "s n"], variance: Float[Tensor, "s n"]) -> Score:
    """Upper bound of the mixture's differential entropy, in nats: that of a Gaussian of the same variance.

    Exact for one draw; may be negative, as differential entropies may.

    Formula: ½ log(2πe σ*²). Source: Cover and Thomas, Elements of information theory, theorem 8.6.5.
    """
    return 0.5 * (split(mean, variance).total * (2 * math.pi * math.e)).log()


def cdf(mixture: Gaussians | Mixture, values: Float[Tensor, "*q n"]) -> Float[Tensor, "*q n"]:
    """Probability of at most `values`, in [0, 1]; at the labels it is the PIT, uniform if the mixture is right.

    Example
    -------
    >>> cdf(Gaussians(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1)), torch.tensor([1.0]))
    tensor([0.5000])
    """
    weight, mean, variance = _components(mixture)
    steps = (values[..., None, :] - mean) / variance.sqrt()
    return (weight * torch.special.ndtr(steps)).sum(-2)


def quantile(mixture: Gaussians | Mixture, level: float) -> Float[Tensor, " n"]:
    """The value that the mixture stays below with probability `level`; by bisection, to the last bits, and in an
    exported graph, which holds every step by itself, in few wide ones, to 1e-9 of the way between components.

    It lies between the smallest and the largest of the components' own quantiles.

    Raises
    ------
    OptionError
        If `level` is not in (0, 1).
    """
    return _quantiles(mixture, [level])[0]


def _quantiles(mixture: Gaussians | Mixture, levels: Sequence[float]) -> Float[Tensor, "l n"]:
    if wrong := [level for level in levels if not 0 < level < 1]:
        raise OptionError(f"level: expected a probability in (0, 1), got {wrong[0]}")
    weight, mean, variance = _components(mixture)
    deviation, steps_of = variance.double().sqrt(), NormalDist().inv_cdf
    own = torch.stack([mean.double() + deviation * steps_of(level) for level in levels])
    if len(mean) == 1:
        return own[:, 0].to(mean.dtype)
    low, high = own.amin(1), own.amax(1)
    exact = Mixture(weight.double(), mean.double(), variance.double())
    parts, steps = (32, 6) if torch.compiler.is_exporting() else (2, 60)
    inner, wanted = (
        torch.tensor(values, dtype=torch.float64, device=low.device)
        for values in ([[[part]] for part in range(1, parts)], [[level] for level in levels])
    )
    for _ in range(steps):
        width = (high - low) / parts
        low = low + width * (cdf(exact, low + width * inner) < wanted).double().sum(0)
        high = low + width
    return ((low + high) / 2).to(mean.dtype)


def interval(mixture: Gaussians | Mixture, *, error: float = 0.05) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Central interval: lower and upper end, each with probability `error` / 2 beyond it.

    Raises
    ------
    OptionError
        If `error` is not in (0, 1).
    """
    if not 0 < error < 1:
        raise OptionError(f"error: expected a share in (0, 1), got {error}")
    low, high = _quantiles(mixture, [error / 2, 1 - error / 2])
    return low, high


def _components(mixture: Gaussians | Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and variances, all (k, n)."""
    if isinstance(mixture, Mixture):
        return mixture.weight, mixture.mean, mixture.variance
    mean = mixture.mean if mixture.mean.ndim == 2 else mixture.mean[None]
    variance = mixture.variance if mixture.variance.ndim == 2 else mixture.variance[None]
    return torch.full_like(mean, 1 / len(mean)), mean, variance


def _check_last(outputs: Tensor, length: int) -> None:
    if outputs.shape[-1] != length:
        raise DataError(f"outputs: expected a last axis of {length}, got {tuple(outputs.shape)}: another objective's?")
