"""Normalising inside the model, so that whoever attacks or bounds it knows the true box of its inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caveat.errors import OptionError

__all__ = ["Normalized"]


class Normalized(nn.Module):
    """`model((inputs - mean) / std)`, each channel with its own mean and standard deviation, or all with one.

    Inputs stay in [0, 1] for the caller; `mean` and `std` are buffers and travel with the model.

    Raises
    ------
    OptionError
        If a standard deviation is not positive, or there are not as many of them as means.

    Example
    -------
    >>> Normalized(nn.Identity(), 0.5, 0.25)(torch.tensor([[[[1.0]]]])).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        means, stds = (torch.as_tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1) for values in (mean, std))
        if means.shape != stds.shape:
            raise OptionError(f"std: expected {means.numel()} values, as many as means, got {stds.numel()}")
        if not (means.isfinite().all() and stds.isfinite().all() and (stds > 0).all()):
            raise OptionError(f"std: expected finite means and positive, finite deviations, got {mean} and {std}")
        self.model = model
        self.register_buffer("mean", means)
        self.register_buffer("std", stds)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.model((inputs - self.mean) / self.std)
