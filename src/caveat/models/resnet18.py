"""ResNet-18 for small pictures."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.models.initialise import built, check_sizes
from caveat.types import Logits

__all__ = ["Block", "ResNet18", "resnet18"]


def resnet18(
    *, classes: int = 10, channels: int = 3, size: int = 32, generator: torch.Generator | None = None
) -> "ResNet18":
    """ResNet-18 with a 3x3 stem and no pooling before the stages, as usual for 32x32 pictures.

    11.2 million parameters and 0.56 thousand million multiplications a picture at 32x32. Inputs are
    `(n, channels, size, size)`. He et al., CVPR 2016, section 3.3, table 1 (their stem is for 224x224).

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, or pictures smaller than 8x8.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=8)
    return built(lambda: ResNet18(classes, channels, size), generator)


class Block(nn.Module):
    """Convolution, norm, ReLU, convolution, norm; plus the input; ReLU."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outward)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outward)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride > 1 or inward != outward:
            self.shortcut.append(nn.Conv2d(inward, outward, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outward))

    def forward(self, inputs: Float[Tensor, "n a h w"]) -> Float[Tensor, "n b i j"]:
        """Maps of `outward` channels."""
        inner = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(inputs)))))
        return self.relu2(inner + self.shortcut(inputs))


class ResNet18(nn.Module):
    """See `resnet18`."""

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.stage1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.stage2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.stage3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.stage4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.pool = nn.AvgPool2d((size + 7) // 8)  # of the whole map: three halvings, each rounded up
        self.flatten = nn.Flatten()
        self.head = nn.Linear(512, classes)

    def forward(self, inputs: Float[Tensor, "n ch h w"]) -> Logits:
        """Logits."""
        maps = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(inputs)))))
        return self.head(self.flatten(self.pool(maps)))
