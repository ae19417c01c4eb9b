"""Standardising inside the model: whoever uses it gives inputs and gets predictions in their own units."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from caveat import evaluation
from caveat.errors import DataError

__all__ = ["Standardized", "label_units", "restored", "standardized", "standardizes"]

OWN = ("input_mean", "input_std", "label_mean", "label_std")
CONSTANT = 1e-9
"""A deviation below this share of the mean is rounding's."""


class Standardized(nn.Module):
    """`model((inputs - input_mean) / input_std)`, whose outputs are about `(label - label_mean) / label_std`.

    The outputs are left as they are: what they mean is the objective's business, so `label_units` tells those who read
    them. All four are buffers and travel with the model.
    """

    input_mean: Tensor
    input_std: Tensor
    label_mean: Tensor
    label_std: Tensor

    def __init__(self, model: nn.Module, statistics: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        for name in OWN:
            self.register_buffer(name, statistics[name].detach().clone())
        evaluation.without_mode(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's outputs, in standardised units.

        Raises
        ------
        DataError
            If the inputs have another shape than those that it was fitted on.
        """
        if inputs.shape[1:] != self.input_mean.shape:
            raise DataError(
                f"inputs: expected shape (n, {', '.join(map(str, self.input_mean.shape))}), got {tuple(inputs.shape)}"
            )
        return self.model((inputs - self.input_mean) / self.input_std)


def standardized(model: nn.Module, inputs: Tensor, labels: Tensor | None) -> Standardized:
    """`model` between the units of these training inputs, and labels if they are real, and standardised ones.

    Columns that do not vary are only centred.

    Raises
    ------
    DataError
        If there are fewer than two samples, or all labels are the same.
    """
    if len(inputs) < 2:
        raise DataError(f"data: expected at least 2 samples to standardise by, got {len(inputs)}")
    wide = inputs.double()
    mean, std = wide.mean(dim=0), wide.std(dim=0, correction=0)
    std = torch.where(std > CONSTANT * mean.abs().clamp_min(1e-300), std, torch.ones_like(std))
    centre, scale = torch.zeros(()), torch.ones(())
    if labels is not None:
        centre, scale = labels.double().mean().float(), labels.double().std(correction=0).float()
        if not float(scale) > 0:
            raise DataError("data: all labels are the same: there is nothing to learn")
    found = {"input_mean": mean.float(), "input_std": std.float(), "label_mean": centre, "label_std": scale}
    return Standardized(model, found)


def label_units(model: nn.Module) -> tuple[float, float]:
    """Centre and scale of the labels, as far as a network standardises them: label = centre + scale * output."""
    found = next((layer for layer in model.modules() if isinstance(layer, Standardized)), None)
    return (0.0, 1.0) if found is None else (float(found.label_mean), float(found.label_std))


def standardizes(model: nn.Module) -> bool:
    """Whether a network, or a part of it, stands between its own units and standardised ones."""
    return any(isinstance(layer, Standardized) for layer in model.modules())


def restored(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """`model`, in a `Standardized` with the numbers of `state` where that was saved from one around such a model."""
    if set(state) != {*OWN, *(f"model.{key}" for key in model.state_dict())}:
        return model
    return Standardized(model, state)
