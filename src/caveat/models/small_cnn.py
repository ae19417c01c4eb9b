"""A small convolutional network, for a first result within a minute."""

from collections import OrderedDict

import torch
from torch import nn

from caveat.models.initialise import built, check_sizes

__all__ = ["small_cnn"]


def small_cnn(
    *, classes: int = 10, channels: int = 1, size: int = 28, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Two 3x3 convolutions with batch normalisation and pooling, a hidden layer of 128 units, the head.

    0.21 million parameters at 28x28. Inputs are `(n, channels, size, size)`.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, or pictures smaller than 4x4.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=4)
    return built(
        lambda: nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
                norm1=nn.BatchNorm2d(16),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(16, 32, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(32),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                hidden=nn.Linear(32 * (size // 4) ** 2, 128),
                relu3=nn.ReLU(),
                head=nn.Linear(128, classes),
            )
        ),
        generator,
    )
