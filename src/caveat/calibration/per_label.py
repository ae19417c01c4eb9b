"""A temperature for each label of a multi-label network: independent sigmoids are calibrated independently."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat.calibration import temperature
from caveat.errors import DataError

__all__ = ["PerLabel", "fit"]


@dataclass(frozen=True)
class PerLabel:
    """Logits divided by their label's temperature; no label changes its side, and none its order of samples."""

    temperature: Float[Tensor, " c"]

    def __call__(self, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """`logits / temperature`, label by label, in the dtype of the logits."""
        return logits / self.temperature.to(logits)


def fit(logits: Float[Tensor, "n c"], labels: Bool[Tensor, "n c"]) -> PerLabel:
    """Temperature scaling of each label, as of a classifier of two classes with the logits (0, z).

    Fit it on data that the network was not trained on. Formula: σ(z_k/T_k), T_k of least binary cross-entropy. Of a
    label that no sample has, or all, nothing can be learned: its temperature is 1.

    Raises
    ------
    DataError
        If a logit is not finite, shapes differ, or there is no sample.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, equation 9, of two classes.

    Examples
    --------
    >>> z = torch.tensor([[3.0, 1.0]]).repeat(4, 1)  # says 95 % for the first label, which 3 of 4 have: T = 3/log 3
    >>> y = torch.tensor([[True, False], [True, False], [True, False], [False, False]])
    >>> [round(t, 6) for t in fit(z, y).temperature.tolist()]
    [2.730718, 1.0]
    """
    if logits.ndim != 2 or logits.shape != labels.shape or not len(logits):
        raise DataError(f"labels: expected one for each logit (n, c), got {tuple(labels.shape)}, {tuple(logits.shape)}")
    found = torch.ones(logits.shape[1], dtype=torch.float64)
    for k in range(logits.shape[1]):
        here = labels[:, k]
        if bool(here.any()) and not bool(here.all()):
            two = torch.stack([torch.zeros_like(logits[:, k]), logits[:, k]], dim=1)
            found[k] = temperature.fit(two, here.long()).temperature.cpu()
    return PerLabel(found)
