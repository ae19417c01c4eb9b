"""The fully connected network of the TRADI experiments on MNIST."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.models.initialise import built, check_sizes

__all__ = ["tradi_mlp"]


class _Centred(nn.Module):
    """Pixels from [0, 1] to [-1, 1]."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * inputs.flatten(1) - 1


def tradi_mlp(
    *,
    classes: int = 10,
    channels: int = 1,
    size: int = 28,
    hidden: int = 200,
    rate: float = 0.1,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Three hidden layers of 200 units with batch norm before ReLU, dropout after the second and the third.

    0.24 million parameters. Inputs are `(n, channels, size, size)` in [0, 1]; they are brought to [-1, 1] here.
    Franchi et al., TRADI, ECCV 2020, as in the authors' code.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, no pixels, no units, or the rate of dropout is not in [0, 1).
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=1)
    if hidden < 1 or not 0 <= rate < 1:
        raise OptionError(f"tradi_mlp: expected hidden >= 1 and a rate in [0, 1), got {hidden} and {rate}")

    def make() -> nn.Sequential:
        model = nn.Sequential()
        model.add_module("centred", _Centred())
        for number, (inward, outward) in enumerate(pairwise((channels * size**2, hidden, hidden, hidden)), start=1):
            model.add_module(f"hidden{number}", nn.Linear(inward, outward))
            model.add_module(f"norm{number}", nn.BatchNorm1d(outward))
            model.add_module(f"relu{number}", nn.ReLU())
            if number > 1:
                model.add_module(f"dropout{number}", nn.Dropout(rate))
        model.add_module("head", nn.Linear(hidden, classes))
        return model

    return built(make, generator)
