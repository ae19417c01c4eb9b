"""One factor for all predicted deviations: temperature scaling's counterpart in regression."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from caveat.calibration import _check

__all__ = ["VarianceScaling", "fit"]

Values = Float[Tensor, " n"]


@dataclass(frozen=True)
class VarianceScaling:
    """Multiplies deviations by one factor."""

    factor: Float[Tensor, ""]
    """Above 1 where the network was overconfident; float64."""

    def __call__(self, scale: Values) -> Values:
        """The scaled deviations."""
        return scale * self.factor.to(scale.dtype)


def fit(mean: Values, scale: Values, labels: Values) -> VarianceScaling:
    """The factor that makes the labels likeliest, of all deviations `factor · scale` of Gaussians.

    It changes no prediction and no order of uncertainties. Formula: (mean ((y_i - μ_i) / σ_i)²)^½.

    Raises
    ------
    DataError
        If there is no sample, shapes differ, a value is not finite, or a scale is not positive.

    Source: M.-H. Laves et al., Well-calibrated regression uncertainty in medical imaging with deep learning, MIDL 2020,
    equation 8 (σ scaling).

    Examples
    --------
    >>> import torch
    >>> round(fit(torch.zeros(2), torch.ones(2), torch.tensor([3.0, 4.0])).factor.item(), 6)  # sqrt(25 / 2)
    3.535534
    """
    _check.real(labels, {"mean": mean, "scale": scale})
    _check.positive("scale", scale)
    steps = (labels.double() - mean.double()) / scale.double()
    return VarianceScaling(steps.square().mean().sqrt())
