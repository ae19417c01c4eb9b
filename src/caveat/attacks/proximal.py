"""Minimise a smooth function of the input plus a multiple of the L1 size of the change, within the box, exactly."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.errors import ModelError, OptionError

__all__ = ["Lowest", "shrink", "sparsest"]

Smooth: TypeAlias = Callable[[Tensor], Tensor]
"""Of inputs (n, ...) the value (n,); a sample's value depends on that sample alone."""
SUFFICIENT = 1e-4  # of the predicted decrease must come true
SHORTEST, LONGEST = 1e-12, 1e12


@dataclass(frozen=True)
class Lowest:
    """The change with the lowest penalised value met, sample by sample."""

    change: Float[Tensor, "n d"]
    values: Float[Tensor, " n"]
    """Of function and penalty together."""
    steps: Int[Tensor, " n"]
    """Forward and backward passes until the sample stood still."""
    still: Float[Tensor, " n"]
    """The largest value of the last step: 0 is an exact stationary point."""


def shrink(change: Float[Tensor, "n d"], by: Tensor, low: Tensor, high: Tensor) -> Float[Tensor, "n d"]:
    """The d in [low, high] that minimises (d - change)^2 / 2 + by |d|, value by value.

    Exact: the objective is convex and splits into single values, on each of which it falls until the soft-thresholded
    value sign(v) max(|v| - by, 0) and rises after it; so within an interval the least is the nearest point of the
    interval, which is what clipping gives. Thresholding must be by step length times penalty, and clipping come after.
    """
    return torch.clamp(change.sign() * (change.abs() - by).clamp_min(0), low, high)


def sparsest(
    function: Smooth,
    inputs: Float[Tensor, "n ..."],
    *,
    penalty: int | float | Float[Tensor, " n"],
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 200,
    tolerance: float = 1e-6,
) -> Lowest:
    """Minimise function(x + d) + penalty |d|_1 over d with x + d in the box, by proximal gradient steps.

    Each sample has its own step length: first the one its last two gradients suggest (Barzilai and Borwein), then
    halved until the penalised value falls as it should, so it never rises. One forward and backward pass a step, of
    which the gradient serves the next. A sample stops on its own, when it moves by less than `tolerance`.
    Formula: d <- shrink(d - t g, t penalty), accepted if F falls by at least 1e-4 |step|^2 / (2 t).

    Raises
    ------
    OptionError
        If the penalty is negative or there is no step.
    ModelError
        If the function has no gradient, or is NaN at an input.

    Source: Beck and Teboulle, SIAM J. Imaging Sciences 2009 (the step); Wright, Nowak and Figueiredo, IEEE Trans.
    Signal Processing 2009 (SpaRSA: its length).
    """
    weight = torch.as_tensor(penalty, dtype=inputs.dtype, device=inputs.device).expand(len(inputs)).unsqueeze(1)
    if steps < 1 or not bool((weight >= 0).all()):
        raise OptionError(f"steps, penalty: expected at least 1 and numbers >= 0, got {steps} and {penalty}")
    with torch.inference_mode(False), torch.enable_grad():
        centres = inputs.detach().clone()
        flat = centres.flatten(1)
        floor = torch.full_like(flat, -math.inf) if low is None else (low - flat).clamp_max(0)
        roof = torch.full_like(flat, math.inf) if high is None else (high - flat).clamp_min(0)
        at = _start(function, centres, flat)
        for _ in range(steps):
            if not bool(at.moving.any()):
                break
            at = _stepped(function, centres, at, weight, (floor, roof), tolerance)
    return Lowest(at.change, at.values + weight.squeeze(1) * at.change.abs().sum(1), at.steps, at.still)


@dataclass(frozen=True)
class _State:
    change: Tensor
    values: Tensor
    """Of the function alone."""
    gradient: Tensor
    length: Tensor
    moving: Tensor
    steps: Tensor
    still: Tensor


def _start(function: Smooth, centres: Tensor, flat: Tensor) -> _State:
    change = torch.zeros_like(flat)
    values, gradient = _evaluated(function, centres, change)
    if bool(values.isnan().any()):
        raise ModelError("function: its value is NaN at some of the inputs: look at the model and at the inputs")
    length = 1 / gradient.abs().amax(1, keepdim=True).clamp(SHORTEST, LONGEST)  # a first step of at most 1 a value
    count = torch.ones(len(flat), dtype=torch.int64, device=flat.device)
    return _State(change, values, gradient, length, torch.ones_like(count, dtype=torch.bool), count, values * 0)


def _stepped(
    function: Smooth, centres: Tensor, at: _State, weight: Tensor, box: tuple[Tensor, Tensor], tolerance: float
) -> _State:
    change = shrink(at.change - at.length * at.gradient, at.length * weight, *box)
    change = torch.where(at.moving[:, None], change, at.change)
    values, gradient = _evaluated(function, centres, change)
    move, turn = change - at.change, gradient - at.gradient
    squared = move.square().sum(1)
    fall = at.values - values + weight.squeeze(1) * (at.change.abs().sum(1) - change.abs().sum(1))
    rounding = 8 * torch.finfo(values.dtype).eps * values.abs()
    accepted = (fall >= SUFFICIENT * squared / (2 * at.length.squeeze(1)) - rounding) & at.moving
    curvature = (move * turn).sum(1) / squared.clamp_min(torch.finfo(values.dtype).tiny)
    suggested = torch.where(curvature > 0, 1 / curvature.clamp_min(SHORTEST), 4 * at.length.squeeze(1))
    length = torch.where(accepted, suggested, at.length.squeeze(1) / 2).clamp(SHORTEST, LONGEST)
    far = move.abs().amax(1)
    rows = accepted[:, None]
    return replace(
        at,
        change=torch.where(rows, change, at.change),
        values=torch.where(accepted, values, at.values),
        gradient=torch.where(rows, gradient, at.gradient),
        length=torch.where(at.moving, length, at.length.squeeze(1))[:, None],
        moving=at.moving & (far > tolerance),
        steps=at.steps + at.moving,
        still=torch.where(at.moving, far, at.still),
    )


def _evaluated(function: Smooth, centres: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    points = (centres + change.reshape(centres.shape)).requires_grad_()
    values = function(points)
    if values.shape != points.shape[:1] or not values.requires_grad:
        raise ModelError(f"function: expected {len(points)} values with a gradient, got shape {tuple(values.shape)}")
    (gradient,) = torch.autograd.grad(values.sum(), points)
    return values.detach(), gradient.flatten(1)
