"""LeNet."""

from collections import OrderedDict

import torch
from torch import nn

from caveat.models.initialise import built, check_sizes

__all__ = ["lenet"]


def lenet(
    *, classes: int = 10, channels: int = 1, size: int = 28, generator: torch.Generator | None = None
) -> nn.Sequential:
    """The LeNet of the ACET experiments: two 5x5 convolutions with pooling and a hidden layer of 1,024 units.

    3.27 million parameters and 13.9 million multiplications a picture at 28x28; no normalisation, no dropout. Inputs
    are `(n, channels, size, size)`. Hein, Andriushchenko and Bitterwolf, CVPR 2019, as in the authors' code.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, or pictures smaller than 4x4.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=4)
    return built(
        lambda: nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(channels, 32, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(32, 64, 5, padding=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                hidden=nn.Linear(64 * (size // 4) ** 2, 1024),
                relu3=nn.ReLU(),
                head=nn.Linear(1024, classes),
            )
        ),
        generator,
    )
