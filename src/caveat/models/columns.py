"""A regression network of another form as one that gives a row of numbers for each input."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from caveat import evaluation
from caveat.batches import Inputs, Several
from caveat.errors import DataError, ModelError
from caveat.inputs import moved
from caveat.types import Drawing

__all__ = ["Columns", "as_columns"]

FEW = 8


class Columns(nn.Module):
    """Gives `(n, k)` of a network that returns `(n,)`, several tensors, or a distribution (its mean and variance)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        evaluation.without_mode(self)

    def forward(self, inputs: Inputs) -> Tensor:
        """The columns, in the order in which the network returns them."""
        return _columns(inputs.call(self.model) if isinstance(inputs, Several) else self.model(inputs), len(inputs))


def as_columns(model: nn.Module, inputs: Inputs, *, name: str = "inputs") -> nn.Module:
    """`model` itself if it gives `(n, k)` of a tensor; else `Columns` of it. Costs a forward pass over 8 inputs.

    Raises
    ------
    ModelError
        If its outputs are no numbers for each input.
    DataError
        If the network does not take these inputs, those of the set `name`.
    """
    if isinstance(model, Columns | Drawing):
        return model
    few = moved(inputs[:FEW].clone(), model)
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            made = few.call(model) if isinstance(few, Several) else model(few)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{name}: the model fails on inputs of shape {tuple(few.shape)}: {str(error).splitlines()[0]}"
        ) from error
    _columns(made, len(few))
    plain = isinstance(made, Tensor) and made.ndim > 1 and isinstance(inputs, Tensor)
    return model if plain else Columns(model)


def _columns(made: Any, count: int) -> Tensor:
    if isinstance(made, Distribution):
        made = (made.mean, made.variance)
    parts: list[Any] = list(made.values()) if isinstance(made, Mapping) else [made]
    if isinstance(made, tuple | list):
        parts = list(made)
    tensors: list[Tensor] = []
    for part in parts:
        if (
            not isinstance(part, Tensor)
            or not part.is_floating_point()
            or part.ndim not in (1, 2)
            or len(part) != count
        ):
            what = f"{part.dtype} {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            raise ModelError(
                f"model: expected numbers (n,) or (n, k) for each of {count} inputs of a regression network, got {what}"
            )
        tensors.append(part[:, None] if part.ndim == 1 else part)
    return torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0]
