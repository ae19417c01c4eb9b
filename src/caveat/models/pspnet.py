"""PSPNet: segmentation with a look at the whole scene."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from caveat.errors import OptionError
from caveat.models.initialise import built, check_sizes

__all__ = ["BACKBONES", "PSPNet", "pspnet"]

Maps = Float[Tensor, "n _ _ _"]

BACKBONES: dict[str, tuple[bool, tuple[int, int, int, int], int]] = {
    "resnet50": (True, (3, 4, 6, 3), 64),
    "resnet18": (False, (2, 2, 2, 2), 64),
    "tiny": (False, (1, 1, 1, 1), 16),
}
"""Blocks with a bottleneck or without, how many in each stage, and how wide the first is."""


def pspnet(
    *, classes: int = 11, channels: int = 3, backbone: str = "resnet50", generator: torch.Generator | None = None
) -> "PSPNet":
    """PSPNet: a dilated ResNet, means of the maps over 1, 2, 3 and 6 parts a side beside them, then the classes.

    Pictures `(n, channels, h, w)` of any size from 8x8; the maps are an eighth of it, the logits are enlarged to it
    bilinearly. 46.6 million parameters with `resnet50`, for GPUs; 0.40 million with `tiny`, for a look. The published
    one has a second loss on the third stage, which is left out here; dropout of 0.1 before the head.

    Source: Zhao, Shi, Qi, Wang and Jia, Pyramid scene parsing network, CVPR 2017.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, or no such backbone.
    """
    check_sizes(classes=classes, channels=channels, size=8, smallest=8)
    if backbone not in BACKBONES:
        raise OptionError(f"backbone: there is no {backbone!r}; expected one of {', '.join(BACKBONES)}")
    return built(lambda: PSPNet(classes, channels, *BACKBONES[backbone]), generator)


def _conv(inward: int, outward: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inward, outward, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)
    return [conv, nn.BatchNorm2d(outward)]


class _Block(nn.Module):
    """A residual block, its 3x3 convolutions dilated; with a bottleneck four times as wide at its end."""

    def __init__(self, inward: int, width: int, *, bottleneck: bool, stride: int, dilation: int) -> None:
        super().__init__()
        outward = 4 * width if bottleneck else width
        if bottleneck:
            parts = [
                *_conv(inward, width, 1), nn.ReLU(),
                *_conv(width, width, 3, stride=stride, dilation=dilation), nn.ReLU(),
                *_conv(width, outward, 1),
            ]  # fmt: skip
        else:
            parts = [
                *_conv(inward, width, 3, stride=stride, dilation=dilation), nn.ReLU(),
                *_conv(width, width, 3, dilation=dilation),
            ]  # fmt: skip
        self.branch = nn.Sequential(*parts)
        same = inward == outward and stride == 1
        self.shortcut = nn.Sequential() if same else nn.Sequential(*_conv(inward, outward, 1, stride=stride))
        self.active = nn.ReLU()

    def forward(self, inputs: Maps) -> Maps:
        return self.active(self.shortcut(inputs) + self.branch(inputs))


class _Pyramid(nn.Module):
    """The maps, and beside them their means over coarse grids, each with a quarter of the channels."""

    def __init__(self, channels: int, bins: tuple[int, ...]) -> None:
        super().__init__()
        part = channels // len(bins)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(count), *_conv(channels, part, 1), nn.ReLU()) for count in bins
        )

    def forward(self, inputs: Maps) -> Maps:
        size = inputs.shape[-2:]
        coarse = [
            functional.interpolate(level(inputs), size, mode="bilinear", align_corners=False) for level in self.levels
        ]
        return torch.cat([inputs, *coarse], dim=1)


class PSPNet(nn.Module):
    """See `pspnet`."""

    def __init__(
        self, classes: int, channels: int, bottleneck: bool, blocks: tuple[int, int, int, int], width: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv(channels, width // 2, 3, stride=2), nn.ReLU(),
            *_conv(width // 2, width // 2, 3), nn.ReLU(),
            *_conv(width // 2, width, 3), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        stages: list[nn.Module] = []
        inward = width
        for number, (count, stride, dilation) in enumerate(zip(blocks, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            own = width * 2**number
            for place in range(count):
                first = place == 0
                block = _Block(inward, own, bottleneck=bottleneck, stride=stride if first else 1, dilation=dilation)
                stages.append(block)
                inward = 4 * own if bottleneck else own
        self.backbone = nn.Sequential(*stages)
        self.pyramid = _Pyramid(inward, (1, 2, 3, 6))
        self.fuse = nn.Sequential(*_conv(2 * inward, inward // 4, 3), nn.ReLU(), nn.Dropout2d(0.1))
        self.head = nn.Conv2d(inward // 4, classes, 1)

    def forward(self, inputs: Float[Tensor, "n ch h w"]) -> Float[Tensor, "n c h w"]:
        """Logits of every pixel."""
        coarse = self.head(self.fuse(self.pyramid(self.backbone(self.stem(inputs)))))
        return functional.interpolate(coarse, inputs.shape[-2:], mode="bilinear", align_corners=False)
