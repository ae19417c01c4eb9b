"""Transformations of pictures by few parameters: rotation, shift, scaling, shear, contrast, brightness, or all of them.

The one home of what each means: attacks, bounds and their counterexamples take it from here.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from caveat.errors import DataError, OptionError

__all__ = ["AXES", "TURN", "Range", "Transformation", "applied", "centred", "sources"]

Range = int | float | tuple[int | float, int | float]
"""The largest change either way, or the least and the largest."""
TURN = math.pi / 180
AXES = ("rotate", "right", "down", "scale", "shear", "contrast", "brightness")
"""The parameters, in the order of their columns."""


@dataclass(frozen=True)
class Transformation:
    """Ranges of the parameters; one that is not named stays at 0, which changes nothing.

    A picture is sheared, scaled, rotated about its centre and shifted; then contrast and brightness change its values.
    Formula: clip((1 + contrast) x(H S R (p - (right, down))) + brightness, 0, 1), p a pixel's place from the centre, R
    the rotation back, S = 1 / (1 + scale), H(x, y) = (x - shear y, y). Values between pixels are bilinear, outside 0.

    Raises
    ------
    OptionError
        If a range is not finite, its ends are in the wrong order, or it lets a picture vanish (scale, contrast <= -1).

    Example
    -------
    >>> Transformation(rotate=30, right=(0, 2)).names
    ('rotate', 'right')
    """

    rotate: Range = 0.0
    """Degrees to the left."""
    right: Range = 0.0
    """Pixels."""
    down: Range = 0.0
    """Pixels."""
    scale: Range = 0.0
    """Change of the size: 0.1 for 0.9 to 1.1."""
    shear: Range = 0.0
    """Pixels to the right for each pixel downwards."""
    contrast: Range = 0.0
    """Change of the factor of every value."""
    brightness: Range = 0.0
    """Added to every value."""

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _ends(getattr(self, field.name))
            least = -1.0 if field.name in ("scale", "contrast") else -math.inf
            if not (math.isfinite(low) and math.isfinite(high) and least < low <= high):
                more = " above -1" if math.isfinite(least) else ""
                raise OptionError(
                    f"{field.name}: expected a number >= 0, or the ends of a range, least first, finite{more}; got "
                    f"{getattr(self, field.name)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are anything but 0."""
        return tuple(name for name in AXES if _ends(getattr(self, name)) != (0.0, 0.0))

    @property
    def holds_still(self) -> bool:
        """Whether the picture as it is is one of them."""
        return all(low <= 0 <= high for low, high in zip(self.low, self.high, strict=True))

    def check(self, inputs: Tensor) -> None:
        """Refuse what it can't be of.

        Raises
        ------
        OptionError
            If no parameter has a range.
        DataError
            If inputs are no pictures, or contrast or brightness changes ones outside of [0, 1].
        """
        if not self.names:
            raise OptionError(f"transformation: expected a range for one of {', '.join(AXES)} at least, got none")
        if inputs.ndim != 4:
            raise DataError(f"inputs: expected pictures (n, c, h, w), got {tuple(inputs.shape)}")
        if {"contrast", "brightness"} & {*self.names} and not bool(((inputs >= 0) & (inputs <= 1)).all()):
            raise DataError(
                f"inputs: contrast and brightness are of values in [0, 1], got {float(inputs.min()):.4g} to "
                f"{float(inputs.max()):.4g}; put what scales them into the model (caveat.models.Normalized)"
            )

    @property
    def low(self) -> tuple[float, ...]:
        """The least value of every parameter of `AXES`."""
        return tuple(_ends(getattr(self, name))[0] for name in AXES)

    @property
    def high(self) -> tuple[float, ...]:
        """The largest value of every parameter of `AXES`."""
        return tuple(_ends(getattr(self, name))[1] for name in AXES)

    def drawn(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 7"]:
        """Parameters, uniform in their ranges."""
        low, high = (torch.tensor(end, dtype=torch.float64) for end in (self.low, self.high))
        share = torch.rand(count, len(AXES), generator=generator, dtype=torch.float64, device=generator.device)
        return low.to(share.device) + share * (high - low).to(share.device)


def _ends(given: Range) -> tuple[float, float]:
    low, high = given if isinstance(given, tuple) else (-given, given)
    return float(low), float(high)


def centred(h: int, w: int, like: Tensor) -> tuple[Float[Tensor, " h"], Float[Tensor, " w"]]:
    """Rows and columns counted from the picture's centre."""
    rows, columns = (torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2 for size in (h, w))
    return rows, columns


def sources(parameters: Float[Tensor, "... 7"], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where the transformed picture's value at (x, y) comes from; all counted in pixels from the centre."""
    angle, right, down, scale, shear = parameters[..., :5].unbind(-1)
    across, along, cos, sin = x - right, y - down, (angle * TURN).cos(), (angle * TURN).sin()
    back = (sin * across + cos * along) / (1 + scale)
    return (cos * across - sin * along) / (1 + scale) - shear * back, back


def applied(pictures: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 7"]) -> Float[Tensor, "n c h w"]:
    """Every picture with the parameters of its row, in the order of `AXES`.

    Places are computed in double precision, values in that of the pictures.

    Raises
    ------
    DataError
        If they are no pictures, or not as many as rows.
    """
    if pictures.ndim != 4 or parameters.shape != (len(pictures), len(AXES)):
        raise DataError(
            f"pictures: expected (n, c, h, w) and parameters (n, {len(AXES)}), got {tuple(pictures.shape)} and "
            f"{tuple(parameters.shape)}"
        )
    h, w = pictures.shape[2:]
    rows, columns = centred(h, w, parameters.double())
    x, y = sources(parameters.double()[:, None, None], columns, rows[:, None])
    places = torch.stack([2 * x / w, 2 * y / h], dim=-1).to(pictures.dtype)  # in halves of width and height
    moved = grid_sample(pictures, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    contrast, brightness = parameters[:, 5:].to(pictures.dtype)[..., None, None, None].unbind(1)
    toned = bool(parameters[:, 5:].any())
    return ((1 + contrast) * moved + brightness).clamp(0, 1) if toned else moved
