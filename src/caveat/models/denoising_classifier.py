"""A classifier and a denoising autoencoder that share their encoder: a ResNet-18 without its last stage."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.models.initialise import built, check_sizes
from caveat.models.resnet18 import Block
from caveat.types import Logits

__all__ = ["DenoisingClassifier", "denoising_classifier"]


def denoising_classifier(
    *,
    classes: int = 10,
    channels: int = 1,
    size: int = 28,
    width: int = 16,
    generator: torch.Generator | None = None,
) -> "DenoisingClassifier":
    """The first three stages of a ResNet-18, narrow, with a linear head and a decoder on the same maps.

    A 3x3 stem without pooling, stages of two blocks with `width`, twice and four times as many channels; the decoder
    mirrors them: twice upsampled (nearest) and convolved, then one convolution and a sigmoid. With the default sizes
    0.21 million parameters and 29 million multiplications a picture, decoder and all. Inputs are
    `(n, channels, size, size)` in [0, 1].

    The source says "ResNet-18, the last layer (with 256 channels) omitted, the first 10 layers shared"; a ResNet-18's
    last stage has 512. Here the stages keep its depths, and `width` 64 gives its widths. It says nothing of the
    decoder.

    Raises
    ------
    OptionError
        If there are fewer than two classes, no channels, no width, or pictures smaller than 8x8.

    Source: Y. Song, OOD in MNIST (report, Yonsei), section 3.1 and figure 2; He et al., CVPR 2016, table 1.
    """
    check_sizes(classes=classes, channels=channels, size=size, smallest=8, width=width)
    return built(lambda: DenoisingClassifier(classes, channels, size, width), generator)


class DenoisingClassifier(nn.Module):
    """See `denoising_classifier`."""

    def __init__(self, classes: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        half = (size + 1) // 2  # each stride rounds up
        quarter = (half + 1) // 2
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stage1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.stage2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.stage3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.pool = nn.AvgPool2d(quarter)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4 * width, classes)
        self.decoder = nn.Sequential(
            *_widened(4 * width, 2 * width, half),
            *_widened(2 * width, width, size),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, inputs: Float[Tensor, "n ch h w"]) -> Logits:
        """Logits."""
        return self._classified(self._encoded(inputs))

    def reconstruct(self, inputs: Float[Tensor, "n ch h w"]) -> Float[Tensor, "n ch h w"]:
        """The inputs without their noise, as far as the decoder can tell, in [0, 1]."""
        return self.decoder(self._encoded(inputs))

    def both(self, inputs: Float[Tensor, "n ch h w"]) -> tuple[Logits, Float[Tensor, "n ch h w"]]:
        """Logits and reconstructions from one pass through the encoder."""
        maps = self._encoded(inputs)
        return self._classified(maps), self.decoder(maps)

    def _encoded(self, inputs: Tensor) -> Tensor:
        return self.stage3(self.stage2(self.stage1(self.stem(inputs))))

    def _classified(self, maps: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(maps)))


def _widened(inward: int, outward: int, size: int) -> list[nn.Module]:
    """Upsampled to `size`, then convolved."""
    return [
        nn.Upsample(size=(size, size)),
        nn.Conv2d(inward, outward, 3, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(),
    ]
