"""A fully connected network."""

from itertools import pairwise

import torch
from torch import nn

from caveat.errors import OptionError
from caveat.models.initialise import built, check_sizes

__all__ = ["mlp"]


def mlp(
    *,
    classes: int = 10,
    channels: int = 1,
    size: int = 28,
    hidden: tuple[int, ...] = (256, 256),
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Flatten, then linear layers of `hidden` units with ReLU between, then the head.

    Inputs are `(n, channels, size, size)`.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, no pixels, or a layer has no units.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=1)
    if any(units < 1 for units in hidden):
        raise OptionError(f"hidden: expected at least 1 unit in every layer, got {hidden}")

    def make() -> nn.Sequential:
        model = nn.Sequential()
        model.add_module("flatten", nn.Flatten())
        widths = (channels * size**2, *hidden)
        for number, (inward, outward) in enumerate(pairwise(widths), start=1):
            model.add_module(f"hidden{number}", nn.Linear(inward, outward))
            model.add_module(f"relu{number}", nn.ReLU())
        model.add_module("head", nn.Linear(widths[-1], classes))
        return model

    return built(make, generator)
