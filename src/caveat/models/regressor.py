"""A fully connected network for tables."""

from itertools import pairwise

import torch
from torch import nn

from caveat.errors import OptionError
from caveat.models.initialise import built

__all__ = ["regressor"]


def regressor(
    *,
    inputs: int,
    outputs: int = 2,
    hidden: tuple[int, ...] = (50,),
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Linear layers of `hidden` units with ReLU between, dropout after each ReLU if asked for, then the head.

    Inputs are `(n, inputs)`; what the outputs `(n, outputs)` mean is the objective's business. One hidden layer of 50
    units is the network of Hernández-Lobato and Adams, ICML 2015.

    Raises
    ------
    OptionError
        If a size is not positive, or `dropout` is not in [0, 1).
    """
    if inputs < 1 or outputs < 1 or any(units < 1 for units in hidden):
        raise OptionError(f"inputs, outputs, hidden: expected at least 1 each, got {inputs}, {outputs} and {hidden}")
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout: expected a share in [0, 1), got {dropout}")

    def make() -> nn.Sequential:
        model = nn.Sequential()
        widths = (inputs, *hidden)
        for number, (inward, outward) in enumerate(pairwise(widths), start=1):
            model.add_module(f"hidden{number}", nn.Linear(inward, outward))
            model.add_module(f"relu{number}", nn.ReLU())
            if dropout:
                model.add_module(f"dropout{number}", nn.Dropout(dropout))
        model.add_module("head", nn.Linear(widths[-1], outputs))
        return model

    return built(make, generator)
