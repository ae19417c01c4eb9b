"""LeNet."""

from collections import OrderedDict

import torch
from torch import nn

from caveat.errors import OptionError
from caveat.models.initialise import built, check_sizes

__all__ = ["lenet"]


def lenet(
    *,
    classes: int = 10,
    channels: int = 1,
    size: int = 28,
    width: int = 32,
    hidden: int = 1024,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The LeNet of the ACET experiments: two 5x5 convolutions with pooling and a hidden layer of 1,024 units.

    `width` and `2 width` channels, `hidden` units; as published by default: 3.27 million parameters and 13.9 million
    multiplications a picture at 28x28. No normalisation, no dropout. Inputs are `(n, channels, size, size)`. Hein,
    Andriushchenko and Bitterwolf, CVPR 2019, as in the authors' code.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels or units, or pictures smaller than 4x4.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=4)
    if min(width, hidden) < 1:
        raise OptionError(f"width, hidden: expected at least 1, got {width} and {hidden}")
    return built(
        lambda: nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(channels, width, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(width, 2 * width, 5, padding=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                hidden=nn.Linear(2 * width * (size // 4) ** 2, hidden),
                relu3=nn.ReLU(),
                head=nn.Linear(hidden, classes),
            )
        ),
        generator,
    )
