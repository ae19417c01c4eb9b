"""Rotations, shifts and scalings that change the answer, by grid and by random search."""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import above
from caveat.attacks.losses import Loss, margin
from caveat.attacks.network import Harm, checked
from caveat.attacks.noise import drawn
from caveat.attacks.transformation import AXES, applied
from caveat.errors import DataError, OptionError
from caveat.types import Labels, Mask

__all__ = ["Turned", "spatial", "turned"]


@dataclass(frozen=True)
class Turned:
    """The most harmful pose of each picture among those tried."""

    inputs: Float[Tensor, "n c h w"]
    success: Mask
    """Answered wrongly there."""
    pose: Float[Tensor, "n 4"]
    """Degrees to the left, shift to the right and downwards in pixels, and the scale."""


def spatial(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    labels: Labels,
    *,
    generator: torch.Generator,
    degrees: int | float = 30.0,
    pixels: int | float = 3.0,
    scaling: int | float = 0.0,
    grid: tuple[int, int, int] = (13, 3, 1),
    tries: int = 50,
    loss: Loss = margin,
) -> Turned:
    """The worst of many rotations, shifts and scalings of each picture.

    A pose is no small change of the values, so that no ball holds it, and its loss has too many maxima to climb: a grid
    and random poses find more. One forward pass a pose: the number of rotations times the square of that of shifts
    times that of scales, plus `tries`; a sample whose answer has changed is asked no more. The unturned picture comes
    first. Values are bilinear, and 0 outside of the picture.
    Formula: argmax over (a, u, v, s) of loss(x(R(-a) (p - (u, v)) / s)), p the place of a pixel from the centre.

    Parameters
    ----------
    degrees, pixels, scaling
        The largest rotation, shift along an axis, and change of the scale (0.1 for 0.9 to 1.1).
    grid
        How many rotations, shifts along each axis, and scales.
    tries
        Random poses after the grid.

    Raises
    ------
    ModelError
        If the model is in training mode, or does not give logits (n, c).
    DataError
        If inputs are no pictures (n, c, h, w), or labels are not what they should be.
    OptionError
        If a number is out of range.

    Source: Engstrom, Tran, Tsipras, Schmidt and Madry, Exploring the Landscape of Spatial Robustness, ICML 2019 (arXiv
    1712.02779), section 3.
    """
    if min(degrees, pixels, scaling, tries) < 0 or scaling >= 1 or min(grid) < 1:
        raise OptionError(
            "degrees, pixels, scaling, tries, grid: expected numbers >= 0, scaling < 1 and counts of at least 1, got "
            f"{degrees}, {pixels}, {scaling}, {tries} and {grid}"
        )
    checked(model, inputs, labels)
    if inputs.ndim != 4:
        raise DataError(f"inputs: expected pictures (n, c, h, w), got {tuple(inputs.shape)}")
    angles, shifts, scales = ((torch.linspace(-1, 1, k) if k > 1 else torch.zeros(1)).tolist() for k in grid)
    plan = [(0.0, 0.0, 0.0, 0.0), *product(angles, shifts, shifts, scales)]
    noise, found = drawn(len(inputs), generator, inputs.device), inputs.detach().clone()
    reach = torch.tensor([degrees, pixels, pixels, scaling], dtype=inputs.dtype, device=inputs.device)
    pose = torch.zeros(len(inputs), 4, dtype=inputs.dtype, device=inputs.device)
    success, worth = labels.bool() & False, torch.full_like(pose[:, 0], -torch.inf)
    for number in range(len(plan) + tries if len(inputs) else 0):
        rows = (~success).nonzero().squeeze(1)
        if not len(rows):
            break
        share = (
            torch.tensor(plan[number], dtype=inputs.dtype, device=inputs.device).expand(len(rows), 4)
            if number < len(plan)
            else (2 * noise.of(rows).uniform(4, stream=number) - 1).to(inputs.dtype)
        )
        function, tried = Harm(model, labels[rows], loss), turned(inputs.detach()[rows], share * reach)
        with torch.no_grad():
            values = function(tried)
        worse = above(values, worth[rows]) | function.ended()
        found[rows[worse]], pose[rows[worse]] = tried[worse], (share * reach)[worse]
        worth[rows] = torch.where(worse, values, worth[rows])
        success[rows] = function.ended()
    pose[:, 3] += 1
    return Turned(found, success, pose)


def turned(pictures: Float[Tensor, "n c h w"], pose: Float[Tensor, "n 4"]) -> Float[Tensor, "n c h w"]:
    """Pictures rotated by degrees to the left, shifted right and down by pixels, and scaled by 1 + the last number."""
    if not bool(pose.any()):
        return pictures.clone()
    others = pose.new_zeros(len(pose), len(AXES) - pose.shape[1])  # rotate, right, down, scale come first
    return applied(pictures, torch.cat([pose, others], dim=1))
