"""Pictures that belong to no class: noise, permuted pixels, blobs.

Each is a plain function `(..., generator) -> images` with values in [0, 1], for the whole batch at once.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caveat.data.source import Images

__all__ = ["blobs", "blurred", "normal", "permuted", "uniform"]


def uniform(shape: tuple[int, int, int, int], generator: torch.Generator) -> Images:
    """Every channel of every pixel independent and uniform in [0, 1]."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)


def normal(shape: tuple[int, int, int, int], generator: torch.Generator) -> Images:
    """Every channel of every pixel independent from N(0.5, 0.25^2), clipped to [0, 1]."""
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return drawn.mul_(0.25).add_(0.5).clamp_(0, 1)


def permuted(images: Images, generator: torch.Generator) -> Images:
    """The pixels of each picture in a random order: one permutation a picture, its channels moving together.

    The pixels' statistics stay, the structure goes (Hein, Andriushchenko and Bitterwolf, CVPR 2019, section 4).
    """
    n, channels, height, width = images.shape
    order = torch.rand(n, height * width, generator=generator, device=generator.device).argsort(1).to(images.device)
    moved = images.flatten(2).gather(2, order[:, None].expand(-1, channels, -1))
    return moved.reshape(images.shape)


def blobs(
    shape: tuple[int, int, int, int], generator: torch.Generator, *, sigma: float = 1.5, threshold: float = 0.75
) -> Images:
    """Amorphous shapes with definite edges: coin flips (70 % ones), blurred, and black where below `threshold`.

    After Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure", ICLR 2019, appendix A.

    sigma
        Standard deviation of the blur, in pixels.
    """
    flips = uniform(shape, generator) < 0.7
    soft = blurred(flips.to(torch.float32), sigma=sigma)
    return torch.where(soft < threshold, 0.0, soft)


def blurred(images: Images, *, sigma: float) -> Images:
    """Gaussian blur of each channel by itself, cut off at 4 sigma; the border pixels are repeated outwards."""
    radius = max(1, round(4 * sigma))
    kernel = _gaussian(sigma, radius).to(images)
    channels = images.shape[1]
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)
    both = functional.conv2d(rows, kernel[None, :].expand(channels, 1, 1, -1), groups=channels)
    return both.clamp(0, 1)


def _gaussian(sigma: float, radius: int) -> Float[Tensor, " d"]:
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-(at**2) / (2 * sigma**2)).exp()
    return weights / weights.sum()
