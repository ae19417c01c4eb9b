"""Rotations, shifts and other transformations that change the answer, by grid and by random search."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import above
from caveat.attacks.losses import Loss, margin
from caveat.attacks.network import Harm, checked
from caveat.attacks.noise import drawn
from caveat.attacks.transformation import AXES, Transformation, applied
from caveat.errors import OptionError
from caveat.types import Labels, Mask

__all__ = ["Turned", "spatial"]


@dataclass(frozen=True)
class Turned:
    """The most harmful transformation of each picture among those tried."""

    inputs: Float[Tensor, "n c h w"]
    success: Mask
    """Answered wrongly there."""
    parameters: Float[Tensor, "n 7"]
    """Of the transformation, in the order of `transformation.AXES`."""


def spatial(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    labels: Labels,
    transformation: Transformation,
    *,
    generator: torch.Generator,
    poses: int = 125,
    tries: int = 50,
    loss: Loss = margin,
) -> Turned:
    """The worst of many rotations, shifts, scalings, ... of each picture, within the ranges of `transformation`.

    A rotation is no small change of the values, so that no ball holds it, and its loss has too many maxima to climb: a
    grid and random parameters find more. One forward pass each; a sample whose answer has changed is asked no more. The
    picture as it is comes first, where the ranges hold it.
    Formula: argmax over the parameters k of loss(T_k x), T the transformation.

    Parameters
    ----------
    poses
        Of the grid, at most: the largest odd number along every axis that keeps to it.
    tries
        Random parameters after the grid.

    Raises
    ------
    ModelError
        If the model is in training mode, or does not give logits (n, c).
    DataError
        If inputs are no pictures (n, c, h, w), contrast changes ones outside of [0, 1], or labels are not what they
        should be.
    OptionError
        If a number is out of range, or no parameter has one.

    Source: Engstrom, Tran, Tsipras, Schmidt and Madry, Exploring the Landscape of Spatial Robustness, ICML 2019 (arXiv
    1712.02779), section 3.
    """
    if poses < 1 or tries < 0:
        raise OptionError(f"poses, tries: expected at least 1 and at least 0, got {poses} and {tries}")
    labels = checked(model, inputs, labels)
    transformation.check(inputs)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in (transformation.low, transformation.high))
    plan = low + _grid(transformation, poses) * (high - low)
    if transformation.holds_still:
        plan = torch.cat([torch.zeros_like(plan[:1]), plan])
    plan, low, high = (part.to(inputs.device) for part in (plan, low, high))
    noise, found = drawn(len(inputs), generator, inputs.device), inputs.detach().clone()
    parameters = plan[:1].repeat(len(inputs), 1)
    success = labels.bool() & False
    worth = torch.full(success.shape, -torch.inf, dtype=inputs.dtype, device=inputs.device)
    for number in range(len(plan) + tries if len(inputs) else 0):
        rows = (~success).nonzero().squeeze(1)
        if not len(rows):
            break
        if number < len(plan):
            now = plan[number].expand(len(rows), -1)
        else:
            now = low + noise.of(rows).uniform(len(AXES), stream=number) * (high - low)
        function, tried = Harm(model, labels[rows], loss), _moved(inputs.detach()[rows], now)
        with torch.no_grad():
            values = function(tried)
        worse = above(values, worth[rows]) | function.ended()
        found[rows[worse]], parameters[rows[worse]] = tried[worse], now[worse]
        worth[rows] = torch.where(worse, values.to(worth.dtype), worth[rows])
        success[rows] = function.ended()
    return Turned(found, success, parameters)


def _grid(transformation: Transformation, poses: int) -> Tensor:
    """Shares of the ranges, evenly spaced along every axis that has one; the middle comes first."""
    axes = [AXES.index(name) for name in transformation.names]
    count = next(k for k in range(poses | 1, 0, -2) if k ** len(axes) <= poses or k == 1)
    along = torch.linspace(0, 1, count, dtype=torch.float64) if count > 1 else torch.tensor([0.5], dtype=torch.float64)
    places = torch.tensor(list(itertools.product(along.tolist(), repeat=len(axes))), dtype=torch.float64)
    shares = torch.full((len(places), len(AXES)), 0.5, dtype=torch.float64)
    shares[:, axes] = places
    return shares[(shares - 0.5).abs().sum(1).argsort(stable=True)]


def _moved(pictures: Tensor, parameters: Tensor) -> Tensor:
    """Transformed; where nothing changes, to the last digit what they were."""
    return applied(pictures, parameters) if bool(parameters.any()) else pictures.clone()
