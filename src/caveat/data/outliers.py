"""Pictures that belong to no class: noise, permuted pixels, blobs.

Each is a plain function `(..., generator) -> images` with values in [0, 1], for the whole batch at once. Those in
`FROM_IMAGES` are what training draws: `(images, generator) -> images`, as many and of the same shape.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caveat.data.source import Images
from caveat.errors import OptionError

__all__ = [
    "FROM_IMAGES",
    "Outliers",
    "blobs",
    "blurred",
    "normal",
    "occluded",
    "permuted",
    "permuted_then_blurred",
    "quarter_turned",
    "taken_from",
    "uniform",
    "uniform_like",
]

Outliers: TypeAlias = Callable[[Images, torch.Generator], Images]


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


def uniform_like(images: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise in [0, 1] of the shape and kind of `images`; they may be of any rank."""
    drawn = torch.rand(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    return drawn.to(images.device)


def permuted_then_blurred(images: Images, generator: torch.Generator) -> Images:
    """The noise of ACET: half permuted pictures, half uniform noise, low-passed, then stretched to [0, 1].

    The first half (rounded down) are the pictures' pixels in a random order. All are blurred by a Gaussian of 15 x 15
    pixels whose deviation is drawn once a batch from U(1, 2.5), the border mirrored; then every picture is scaled so
    that its pixels reach from 0 to 1. Hein, Andriushchenko and Bitterwolf, CVPR 2019, section 4, as in their code.

    Raises
    ------
    OptionError
        If they are no pictures `(n, k, h, w)`.
    """
    if images.ndim != 4:
        raise OptionError(
            f"outliers: the noise of ACET blurs pictures (n, k, h, w), got inputs of shape "
            f"{tuple(images.shape)}; give the objective other noise, as outliers=data.outliers.uniform_like"
        )
    half = len(images) // 2
    start = torch.cat([permuted(images[:half], generator), uniform_like(images[half:], generator)])
    sigma = 1 + 1.5 * float(torch.rand((), generator=generator, device=generator.device))
    soft = _filtered(start, _gaussian(sigma, 7), mode="reflect")
    low, high = soft.flatten(1).amin(dim=1), soft.flatten(1).amax(dim=1)
    low, span = low[:, None, None, None], (high - low).clamp_min(1e-6)[:, None, None, None]
    return ((soft - low) / span).clamp(0, 1)


def quarter_turned(images: Images, generator: torch.Generator) -> Images:
    """Each picture turned by 90 or 270 degrees (never 180: a 6 would be a 9); they must be square.

    Raises
    ------
    OptionError
        If they are not.
    """
    if images.shape[2] != images.shape[3]:
        raise OptionError(f"images: expected square pictures to turn, got {tuple(images.shape[2:])}")
    left = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
    return torch.where(left[:, None, None, None], images.rot90(1, (2, 3)), images.rot90(3, (2, 3)))


def occluded(
    images: Images, generator: torch.Generator, *, sides: tuple[int, int] = (10, 14), fill: float = 0.0
) -> Images:
    """A square of random size and place painted over each picture.

    Parameters
    ----------
    sides
        Smallest and largest side, in pixels; cut to the picture's.
    fill
        The square's value, in [0, 1].

    Raises
    ------
    OptionError
        If the sides are not 1 <= smallest <= largest.
    """
    if not 1 <= sides[0] <= sides[1]:
        raise OptionError(f"sides: expected 1 <= smallest <= largest, got {sides}")
    n, _, height, width = images.shape
    drawn = torch.rand(n, 3, generator=generator, device=generator.device, dtype=torch.float64).to(images.device)
    side = (sides[0] + (drawn[:, 0] * (sides[1] - sides[0] + 1)).long()).clamp_max(min(height, width))
    top, left = (drawn[:, 1] * (height - side + 1)).long(), (drawn[:, 2] * (width - side + 1)).long()
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    inside_rows = (rows >= top[:, None]) & (rows < (top + side)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + side)[:, None])
    square = (inside_rows[:, :, None] & inside_columns[:, None, :]).unsqueeze(1)
    return images.masked_fill(square, fill)


def taken_from(outliers: Tensor) -> Outliers:
    """Outliers of a given set, drawn with replacement: for outlier exposure.

    Raises
    ------
    OptionError
        If the set is empty; when called, if its pictures are of another shape.
    """
    if not len(outliers):
        raise OptionError("outliers: expected at least one picture, got an empty set")

    def draw(images: Tensor, generator: torch.Generator) -> Tensor:
        if outliers.shape[1:] != images.shape[1:]:
            raise OptionError(
                f"outliers: expected pictures of shape {tuple(images.shape[1:])}, got {tuple(outliers.shape[1:])}"
            )
        rows = torch.randint(len(outliers), (len(images),), generator=generator, device=generator.device)
        return outliers[rows.to(outliers.device)].to(images)

    return draw


def blurred(images: Images, *, sigma: float) -> Images:
    """Gaussian blur of each channel by itself, cut off at 4 sigma; the border pixels are repeated outwards."""
    return _filtered(images, _gaussian(sigma, max(1, round(4 * sigma))), mode="replicate").clamp(0, 1)


def _filtered(images: Images, kernel: Tensor, *, mode: str) -> Images:
    """Each channel filtered along rows and columns."""
    channels, radius = images.shape[1], len(kernel) // 2
    kernel = kernel.to(images)
    if mode == "reflect":  # torch's own repeats no border pixel; this does, and goes on where pictures are small
        padded = _mirrored(_mirrored(images, radius, 2), radius, 3)
    else:
        padded = functional.pad(images, (radius,) * 4, mode=mode)
    rows = functional.conv2d(padded, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, kernel[None, :].expand(channels, 1, 1, -1), groups=channels)


def _mirrored(images: Images, radius: int, dim: int) -> Images:
    size = images.shape[dim]
    at = torch.arange(-radius, size + radius, device=images.device) % (2 * size)
    return images.index_select(dim, torch.where(at < size, at, 2 * size - 1 - at))


def _gaussian(sigma: float, radius: int) -> Float[Tensor, " d"]:
    """On the CPU: not every device has float64."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    weights = (-(at**2) / (2 * sigma**2)).exp()
    return weights / weights.sum()


FROM_IMAGES: dict[str, Outliers] = {
    "uniform": uniform_like,
    "permuted": permuted,
    "permuted_then_blurred": permuted_then_blurred,
    "quarter_turned": quarter_turned,
    "occluded": occluded,
}
