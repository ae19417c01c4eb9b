"""A regression network of another form as one that gives a row of numbers for each input."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from caveat import evaluation
from caveat.batches import Inputs, Several
from caveat.errors import DataError, ModelError
from caveat.inputs import moved
from caveat.types import Drawing

__all__ = ["Columns", "as_columns"]

FEW = 8


class Columns(nn.Module):
    """Gives `(n, k)` of a network that returns `(n,)`, several tensors, a dictionary of them, or a `Normal`.

    `form` is what their names or kind say that the columns mean; None where they say nothing.
    """

    def __init__(self, model: nn.Module, form: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.form = form
        evaluation.without_mode(self)

    def forward(self, inputs: Inputs) -> Tensor:
        """The columns, in the order in which the network returns them."""
        made = inputs.call(self.model) if isinstance(inputs, Several) else self.model(inputs)
        return _columns(made, len(inputs))[0]


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
    _, form = _columns(made, len(few))
    plain = isinstance(made, Tensor) and made.ndim > 1 and isinstance(inputs, Tensor)
    return model if plain else Columns(model, form)


MEANS = ("mean", "loc", "mu", "prediction")
SPREADS = {
    "log_variance": "gaussian", "log_var": "gaussian", "logvar": "gaussian", "variance": "gaussian_variance",
    "var": "gaussian_variance", "std": "gaussian_std", "scale": "gaussian_std", "sigma": "gaussian_std",
    "stddev": "gaussian_std",
}  # fmt: skip
"""Names in a dictionary, and the form of the outputs that they tell."""


def _ordered(made: Mapping[Any, Any]) -> tuple[list[Any], str | None]:
    """What a dictionary holds, the mean first, and the form that its names tell."""
    if len(made) == 1:
        return list(made.values()), None
    mean = [name for name in MEANS if name in made]
    spread = [name for name in SPREADS if name in made]
    if len(made) != 2 or len(mean) != 1 or len(spread) != 1:
        raise ModelError(
            f"model: it gives a dictionary of {', '.join(map(str, made))}; expected one of {', '.join(MEANS)} and one "
            f"of {', '.join(SPREADS)}, or a tensor (n, k)"
        )
    return [made[mean[0]], made[spread[0]]], SPREADS[spread[0]]


def _columns(made: Any, count: int) -> tuple[Tensor, str | None]:
    form: str | None = None
    parts: list[Any] = [made]
    if isinstance(made, Normal):
        parts, form = [made.loc, made.scale], "gaussian_std"
    elif isinstance(made, Distribution):
        raise ModelError(
            f"model: it gives a distribution {type(made).__name__}; expected Normal, or numbers (n, k) of a form that "
            "--outputs knows"
        )
    elif isinstance(made, Mapping):
        parts, form = _ordered(made)
    elif isinstance(made, tuple | list):
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
    return torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0], form
