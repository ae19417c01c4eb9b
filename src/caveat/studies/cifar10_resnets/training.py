"""Public ResNets of CIFAR-10: three stages of basic blocks, whose shortcuts have no weights."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from caveat import weights
from caveat.models import Normalized
from caveat.studies.kit.networks import public

__all__ = ["FILES", "build", "trained"]

FILES = {20: "resnet20-12fca82f.th", 32: "resnet32-d509ac18.th", 44: "resnet44-014dd654.th", 56: "resnet56-4bfd9763.th"}
"""By depth, in the folder `cifar10_resnets` under CAVEAT_DATA: as their author saved them."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions beside a shortcut: every second pixel, and zeros for the channels that are new."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.more = stride, (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        straight = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + straight)


class ResNet(nn.Module):
    """Depth 6 n + 2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        count = (depth - 2) // 6
        self.layer1, self.layer2, self.layer3 = _stage(16, 16, count), _stage(16, 32, count), _stage(32, 64, count)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def _stage(channels_in: int, channels: int, count: int) -> nn.Sequential:
    first = Block(channels_in, channels, channels // channels_in)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(count - 1)))


def build(depth: int = 20) -> nn.Module:
    """The network without weights, for inputs that are normalised already."""
    return ResNet(depth)


def trained(depth: int) -> nn.Module:
    """The network of that depth with its author's weights.

    Raises
    ------
    DataError
        If they are not there.
    """
    bare = ResNet(depth)
    weights.load(bare, public("cifar10_resnets", FILES[depth]), name="study")
    return Normalized(bare, mean=MEAN, std=STD).eval()
