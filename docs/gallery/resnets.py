"""The public CIFAR-10 ResNets of the gallery: three stages of basic blocks, whose shortcuts have no weights."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from caveat.models import Normalized


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
        for stage, (before, channels) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            blocks = [Block(before if k == 0 else channels, channels, 2 if k == 0 and stage > 1 else 1)
                      for k in range((depth - 2) // 6)]  # fmt: skip
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def build(depth: int = 20) -> nn.Module:
    """The network and the normalisation that it was trained with."""
    return Normalized(ResNet(depth), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
