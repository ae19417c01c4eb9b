"""Out-of-distribution inputs made from in-distribution pictures, to put a threshold where no OOD input is at hand."""

import torch
from torch import Tensor

from caveat.data.outliers import occluded, quarter_turned
from caveat.data.source import Images
from caveat.errors import OptionError
from caveat.objectives.denoising import noised
from caveat.types import Reconstructing

__all__ = ["SIDES", "pseudo_ood"]

SIDES = (16, 20)
"""Sides of the large squares, in pixels, for pictures of 28x28."""


def pseudo_ood(
    images: Images,
    generator: torch.Generator,
    *,
    model: Reconstructing | None = None,
    sides: tuple[int, int] = SIDES,
    sigma: int | float = 0.3,
) -> Images:
    """Pictures that look like in-distribution ones and are none: half of them turned by 90 or 270 degrees, half
    largely hidden.

    With a `model` that reconstructs, both are noised as in its training (the second half with the larger square) and
    what the autoencoder makes of them is given: near to in-distribution pictures, since it has learnt to draw nothing
    else.
    Without, the turned and occluded pictures themselves. Not for classes that a quarter turn leaves what they are.

    Parameters
    ----------
    images
        Known pictures `(n, ch, h, w)`, in [0, 1], that the model was not trained on; the first half (rounded up) is
        turned, so they should be in no order.
    sides
        Smallest and largest side of the square, in pixels.
    sigma
        Standard deviation of the noise; only with a `model`.

    Raises
    ------
    OptionError
        If the pictures are not square, or there are fewer than two.

    Source: Y. Song, OOD in MNIST (report, Yonsei), section 3.4 and figure 5.
    """
    if len(images) < 2:
        raise OptionError(f"images: expected at least two pictures, got {len(images)}")
    half = (len(images) + 1) // 2
    turned, rest = quarter_turned(images[:half], generator), images[half:]
    if model is None:
        return torch.cat([turned, occluded(rest, generator, sides=sides)])
    given = torch.cat([noised(turned, generator, sigma=sigma), noised(rest, generator, sigma=sigma, sides=sides)])
    return _reconstructed(model, given)


def _reconstructed(model: Reconstructing, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.reconstruct(part) for part in images.split(256)])
