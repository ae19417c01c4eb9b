"""Conformal intervals around a prediction, as wide as the network's own deviation says, times one fitted factor."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.calibration import _check
from caveat.calibration._rank import conformal_quantile

__all__ = ["NormalisedConformal", "fit", "nonconformity"]

Values = Float[Tensor, " n"]


@dataclass(frozen=True)
class NormalisedConformal:
    """Gives the interval mean ± quantile · scale."""

    quantile: Float[Tensor, ""]
    """By how many scales, float64; infinite where the samples were too few."""

    def __call__(self, mean: Values, scale: Values) -> tuple[Values, Values]:
        """Lower and upper end, float64, rounded outwards: a label on the end of its interval stays inside."""
        half = torch.nextafter(self.quantile * scale.double(), scale.new_tensor(math.inf, dtype=torch.float64))
        far = half + mean.double().abs() * torch.finfo(torch.float64).eps
        return mean.double() - far, mean.double() + far


def fit(mean: Values, scale: Values, labels: Values, *, error: float = 0.1) -> NormalisedConformal:
    """Intervals that miss the label in a share `error` at most, wide where the network is unsure.

    With `scale` 1 everywhere it is split conformal prediction: all intervals are of one width. The promise is that of
    `cqr`, on samples that the network was not trained on and that are exchangeable with those to come. Formula:
    E_i = |y_i - μ_i| / σ_i; q the ⌈(n + 1)(1 - error)⌉-th smallest; μ ± q σ.

    Raises
    ------
    DataError
        If there is no sample, shapes differ, a value is not finite, or a scale is not positive.
    OptionError
        If `error` is not in (0, 1).

    Source: J. Lei et al., Distribution-free predictive inference for regression, JASA 2018, section 5.2; H.
    Papadopoulos, A. Gammerman, V. Vovk, Normalized nonconformity measures for regression conformal prediction, AIA
    2008.

    Examples
    --------
    >>> g = fit(torch.zeros(4), torch.ones(4), torch.tensor([0.5, 1.0, -2.0, 3.0]), error=0.4)  # the 3rd of 4
    >>> [round(end.item(), 6) for end in g(torch.zeros(1), torch.tensor([0.5]))]
    [-1.0, 1.0]
    """
    return NormalisedConformal(conformal_quantile(nonconformity(mean, scale, labels), error))


def nonconformity(mean: Values, scale: Values, labels: Values) -> Values:
    """How many scales each label lies off, rounded up: E of `fit`, float64.

    Raises
    ------
    DataError
        As `fit`.
    """
    _check.real(labels, {"mean": mean, "scale": scale})
    _check.positive("scale", scale)
    steps = (labels.double() - mean.double()).abs() / scale.double()
    return torch.nextafter(steps, steps.new_tensor(math.inf))
