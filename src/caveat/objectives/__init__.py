"""What training minimises: `(model, inputs, labels, generator) -> scalar`."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from caveat.objectives.acet import Acet
from caveat.objectives.adversarial import Adversarial
from caveat.objectives.beta_nll import beta_nll
from caveat.objectives.confidence import Ceda
from caveat.objectives.cross_entropy import cross_entropy
from caveat.objectives.crown_ibp import CrownIbp
from caveat.objectives.denoising import Denoising
from caveat.objectives.evidential import evidential
from caveat.objectives.good import Good
from caveat.objectives.heteroscedastic import heteroscedastic
from caveat.objectives.ibp import Ibp
from caveat.objectives.mean_squared_error import mean_squared_error
from caveat.objectives.mixture_density import mixture_density
from caveat.objectives.outlier_exposure import OutlierExposure
from caveat.objectives.pixel_cross_entropy import pixel_cross_entropy
from caveat.objectives.quantile import quantile
from caveat.objectives.reversed_focal import ReversedFocal
from caveat.objectives.softened import EntropyRegularisation, Focal, LabelSmoothing, LogitNorm, Mixup
from caveat.objectives.trades import Trades

__all__ = [
    "FORMS",
    "FOR_PIXELS",
    "FOR_RECONSTRUCTION",
    "FOR_REGRESSION",
    "OBJECTIVES",
    "Acet",
    "Adversarial",
    "Ceda",
    "CrownIbp",
    "Denoising",
    "EntropyRegularisation",
    "Focal",
    "Good",
    "Ibp",
    "LabelSmoothing",
    "LogitNorm",
    "Mixup",
    "Objective",
    "OutlierExposure",
    "ReversedFocal",
    "Trades",
    "beta_nll",
    "cross_entropy",
    "evidential",
    "heteroscedastic",
    "mean_squared_error",
    "mixture_density",
    "pixel_cross_entropy",
    "quantile",
]

Objective: TypeAlias = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""Of the model, a batch of inputs, its labels and the source of all randomness, the value to minimise."""

OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": cross_entropy,
    "ceda": Ceda(),
    "acet": Acet(),
    "outlier_exposure": OutlierExposure(),
    "good": Good(),
    "label_smoothing": LabelSmoothing(),
    "focal": Focal(),
    "reversed_focal": ReversedFocal(),
    "entropy_regularisation": EntropyRegularisation(),
    "logit_norm": LogitNorm(),
    "mixup": Mixup(),
    "adversarial": Adversarial(),
    "fast_adversarial": Adversarial(steps=1, step=0.375),
    "ibp": Ibp(),
    "crown_ibp": CrownIbp(),
    "trades": Trades(),
}
"""Labels are classes `(n,)`, outputs logits `(n, c)`. Those with options are frozen dataclasses: other values by
`dataclasses.replace(OBJECTIVES["acet"], radius=0.1)` or `Acet(radius=0.1)`."""

FOR_RECONSTRUCTION: dict[str, Objective] = {"denoising": Denoising()}
"""As `OBJECTIVES`, for models that reconstruct their inputs too."""

FOR_REGRESSION: dict[str, Objective] = {
    "mean_squared_error": mean_squared_error,
    "heteroscedastic": heteroscedastic,
    "beta_nll": beta_nll,
    "mixture_density": mixture_density,
    "evidential": evidential,
    "quantile": quantile,
}
"""Labels are real numbers `(n,)`, outputs the parameters of a distribution `(n, k)`."""

FORMS: dict[str, str] = {
    "mean_squared_error": "point",
    "heteroscedastic": "gaussian",
    "beta_nll": "gaussian",
    "mixture_density": "mixture",
    "evidential": "evidential",
    "quantile": "quantiles",
}
"""What the outputs mean of networks trained by `FOR_REGRESSION`: names of `scores.distribution.FORMS`."""

FOR_PIXELS: dict[str, Objective] = {"pixel_cross_entropy": pixel_cross_entropy}
"""Labels are maps `(n, h, w)`, outputs logits `(n, c, h, w)`."""
