"""Weights drawn from a generator, and from nothing else."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from caveat.errors import OptionError

__all__ = ["built", "check_sizes", "glorot"]

M = TypeVar("M", bound=nn.Module)


def built(make: Callable[[], M], generator: torch.Generator | None) -> M:
    """The network that `make` makes, with weights from N(0, 2/n_in) and biases 0 (He et al., ICCV 2015, equation 10).

    The caller's random state is left as it was. Without a generator the weights are those of seed 0.
    """
    generator = generator or torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global state
        model = make()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def glorot(model: M, generator: torch.Generator) -> M:
    """`model` with uniform weights of variance 2/(n_in + n_out) and biases 0 (Glorot and Bengio, AISTATS 2010).

    What Keras starts from: half as large as He's weights, so that learning rates of papers that used it do not diverge.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def check_sizes(*, classes: int, channels: int, size: int, smallest: int, width: int = 1) -> None:
    """Refuse numbers no network can be built with.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, no width, or pictures smaller than `smallest`.
    """
    wanted = (("classes", classes, 2), ("channels", channels, 1), ("size", size, smallest), ("width", width, 1))
    for name, value, least in wanted:
        if value < least:
            raise OptionError(f"{name}: expected at least {least}, got {value}")
