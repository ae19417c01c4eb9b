"""The CNN of the experiments on gradient uncertainty."""

from collections import OrderedDict

import torch
from torch import nn

from caveat.models.initialise import built, check_sizes

__all__ = ["gradient_cnn"]


def gradient_cnn(
    *,
    classes: int = 10,
    channels: int = 1,
    size: int = 28,
    dropout: float = 0.33,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Three 3x3 convolutions of 16 filters, the first two with LeakyReLU and pooling, and a linear head.

    12,650 parameters and 0.69 million multiplications a picture at 28x28; `dropout` after the first and the third
    convolution. Inputs are `(n, channels, size, size)`. The authors start from Glorot's weights (`initialise.glorot`).
    Oberdiek, Rottmann and Gottschalk, ANNPR 2018 (arXiv 1805.08440), section 4.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, or pictures smaller than 4x4.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=4)
    return built(
        lambda: nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(channels, 16, 3, padding=1),
                relu1=nn.LeakyReLU(0.1),
                pool1=nn.MaxPool2d(2),
                dropout1=nn.Dropout(dropout),
                conv2=nn.Conv2d(16, 16, 3, padding=1),
                relu2=nn.LeakyReLU(0.1),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(16, 16, 3, padding=1),
                dropout3=nn.Dropout(dropout),
                flatten=nn.Flatten(),
                head=nn.Linear(16 * (size // 4) ** 2, classes),
            )
        ),
        generator,
    )
