"""The pre-activation ResNet-20 of the ACET experiments."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.models.initialise import built, check_sizes
from caveat.types import Logits

__all__ = ["ResNet20", "resnet20"]


def resnet20(
    *, classes: int = 10, channels: int = 3, size: int = 32, generator: torch.Generator | None = None
) -> "ResNet20":
    """Pre-activation ResNet-20: three stages of three blocks, 16, 32 and 64 channels wide.

    0.27 million parameters and 40.8 million multiplications a picture at 32x32. Shortcuts between stages are average
    pooling and channels of zeros on both sides; strided convolutions are padded on the right and below only. Inputs are
    `(n, channels, size, size)`. He et al., ECCV 2016, section 4; details as in the code of Hein, Andriushchenko and
    Bitterwolf, CVPR 2019.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, or pictures smaller than 4x4.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=4)
    return built(lambda: ResNet20(classes, channels, size), generator)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.01)  # 0.99 in TensorFlow's counting


class _Block(nn.Module):
    """Norm, ReLU, convolution, norm, ReLU, convolution; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, inputs: Float[Tensor, "n ch h w"]) -> Float[Tensor, "n ch h w"]:
        inner = self.conv1(self.relu1(self.norm1(inputs)))
        return inputs + self.conv2(self.relu2(self.norm2(inner)))


class _First(nn.Module):
    """A stage's first block: norm and ReLU come before the shortcut branches off."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.norm1 = _norm(inward)
        self.relu1 = nn.ReLU()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1) if stride > 1 else 1)
        self.conv1 = nn.Conv2d(inward, outward, 3, stride=stride, bias=False)
        self.norm2 = _norm(outward)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential()
        if outward > inward:
            side = (outward - inward) // 2
            self.shortcut.append(nn.AvgPool2d(stride))
            self.shortcut.append(nn.ZeroPad3d((0, 0, 0, 0, side, side)))  # the third axis from behind: channels

    def forward(self, inputs: Float[Tensor, "n a h w"]) -> Float[Tensor, "n b i j"]:
        active = self.relu1(self.norm1(inputs))
        inner = self.conv1(self.pad(active))
        return self.shortcut(active) + self.conv2(self.relu2(self.norm2(inner)))


class ResNet20(nn.Module):
    """See `resnet20`."""

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.stage1 = nn.Sequential(_First(16, 16, 1), _Block(16), _Block(16))
        self.stage2 = nn.Sequential(_First(16, 32, 2), _Block(32), _Block(32))
        self.stage3 = nn.Sequential(_First(32, 64, 2), _Block(64), _Block(64))
        self.norm = _norm(64)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(size // 4)  # of the whole map: two halvings, each rounded down
        self.flatten = nn.Flatten()
        self.head = nn.Linear(64, classes)

    def forward(self, inputs: Float[Tensor, "n ch h w"]) -> Logits:
        """Logits."""
        maps = self.stage3(self.stage2(self.stage1(self.stem(inputs))))
        return self.head(self.flatten(self.pool(self.relu(self.norm(maps)))))
