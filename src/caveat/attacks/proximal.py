"""Minimise a smooth function of the input plus a multiple of the L1 size of the change, within the box, exactly."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.errors import ModelError, OptionError

__all__ = ["Lowest", "shrink", "sparsest"]

Smooth: TypeAlias = Callable[[Tensor], Tensor]
"""Of inputs (n, ...) the value (n,); a sample's value depends on that sample alone."""
SHORTEST, LONGEST = 1e-12, 1e12
INERTIA = 0.92  # share of the last move that goes on
LONGER, SHORTER = 1.2, 0.5  # the step length after one that was accepted, and after one that was not
ROLLING = 65  # steps before the first restart: inertia carries over poor minima, restarts end in the nearest


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
    """Minimise function(x + d) + penalty |d|_1 over d with x + d in the box, by proximal gradient steps with inertia.

    One forward and backward pass a step. Each sample has its own step length: shortened until the function stays below
    its quadratic bound, longer after each success. From the 66th step on a move that raised the value ends the
    inertia, which makes the end exact where the function is convex; earlier it would end in the nearest minimum, and on
    networks those are poorer. The best change met is kept. A sample stops on its own, when it has moved by less than
    `tolerance` twice.
    Formula: d' <- shrink(d - a g + b (d - d_before), a penalty), a = min(1, 2 (1 - b)) t, accepted if f(d') <= f(d) +
    g (d' - d) + |d' - d|^2 / (2 t); b = 0.92, and k / (k + 3) at first, k steps after a restart.

    Raises
    ------
    OptionError
        If the penalty is negative, there is no step, or inputs are in half precision.
    ModelError
        If the function has no gradient, or is NaN at an input.

    Source: Ochs, Chen, Brox and Pock, iPiano, SIAM J. Imaging Sciences 2014 (algorithm 4, for functions that are not
    convex); O'Donoghue and Candes, Adaptive Restart, Foundations of Computational Mathematics 2015 (the restart).
    """
    if inputs.dtype.itemsize < 4 or not inputs.is_floating_point():
        raise OptionError(
            f"inputs: expected single or double precision, got {inputs.dtype}, which can't hold the lengths of the "
            "steps: attack model.float() with inputs.float()"
        )
    weight = torch.as_tensor(penalty, dtype=inputs.dtype, device=inputs.device).expand(len(inputs)).unsqueeze(1)
    if steps < 1 or not bool((weight >= 0).all()):
        raise OptionError(f"steps, penalty: expected at least 1 and numbers >= 0, got {steps} and {penalty}")
    with torch.inference_mode(False), torch.enable_grad():
        centres = inputs.detach().clone()
        flat = centres.flatten(1)
        floor = torch.full_like(flat, -math.inf) if low is None else (low - flat).clamp_max(0)
        roof = torch.full_like(flat, math.inf) if high is None else (high - flat).clamp_min(0)
        at = _start(function, centres, flat)
        for step in range(steps):
            if not bool(at.moving.any()):
                break
            at = _stepped(function, centres, at, weight, (floor, roof), tolerance, restarts=step >= ROLLING)
    return Lowest(at.best, at.lowest, at.steps, at.still)


@dataclass(frozen=True)
class _State:
    change: Tensor
    before: Tensor
    """The change one accepted step ago."""
    values: Tensor
    """Of the function alone."""
    penalised: Tensor
    gradient: Tensor
    length: Tensor
    inertia: Tensor
    """Accepted steps since the last restart: the more, the more of a move goes on."""
    best: Tensor
    lowest: Tensor
    """The penalised value of the best."""
    moving: Tensor
    steps: Tensor
    still: Tensor


def _start(function: Smooth, centres: Tensor, flat: Tensor) -> _State:
    change = torch.zeros_like(flat)
    values, gradient = _evaluated(function, centres, change)
    if bool(values.isnan().any()):
        raise ModelError(
            "function: its value (of a model, the loss) is NaN at some of the points: look for NaN or an overflow there"
        )
    length = 1 / gradient.abs().amax(1, keepdim=True).clamp(SHORTEST, LONGEST)  # a first step of at most 0.16 a value
    count = torch.ones(len(flat), dtype=torch.int64, device=flat.device)
    moving = torch.ones_like(count, dtype=torch.bool)
    inertia = torch.full_like(length, ROLLING)  # all of it from the start
    return _State(
        change, change, values, values, gradient, length, inertia, change, values, moving, count, values * 0,
    )  # fmt: skip


def _stepped(
    function: Smooth,
    centres: Tensor,
    at: _State,
    weight: Tensor,
    box: tuple[Tensor, Tensor],
    tolerance: float,
    *,
    restarts: bool,
) -> _State:
    velocity, share = at.change - at.before, (at.inertia / (at.inertia + 3)).clamp_max(INERTIA)
    length = (2 * (1 - share)).clamp_max(1) * at.length
    change = shrink(at.change - length * at.gradient + share * velocity, length * weight, *box)
    change = torch.where(at.moving[:, None], change, at.change)
    values, gradient = _evaluated(function, centres, change)
    move = change - at.change
    bound = at.values + (at.gradient * move).sum(1) + move.square().sum(1) / (2 * at.length.squeeze(1))
    accepted = (values <= bound + 8 * torch.finfo(values.dtype).eps * values.abs()) & at.moving
    penalised = values + weight.squeeze(1) * change.abs().sum(1)
    rows, better = accepted[:, None], at.moving & (penalised < at.lowest)
    ends = (penalised > at.penalised)[:, None] & restarts
    far = torch.maximum(move.abs().amax(1), velocity.abs().amax(1))
    longer = torch.where(accepted, LONGER, SHORTER).to(values.dtype)[:, None] * at.length
    return _State(
        change=torch.where(rows, change, at.change),
        before=torch.where(rows, torch.where(ends, change, at.change), at.before),
        values=torch.where(accepted, values, at.values),
        penalised=torch.where(accepted, penalised, at.penalised),
        gradient=torch.where(rows, gradient, at.gradient),
        inertia=torch.where(rows, torch.where(ends, 0, at.inertia + 1), at.inertia),
        length=torch.where(at.moving[:, None], longer.clamp(SHORTEST, LONGEST), at.length),
        best=torch.where(better[:, None], change, at.best),
        lowest=torch.where(better, penalised, at.lowest),
        moving=at.moving & (far > tolerance),
        steps=at.steps + at.moving,
        still=torch.where(at.moving, far, at.still),
    )


def _evaluated(function: Smooth, centres: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    points = (centres + change.reshape(centres.shape)).requires_grad_()
    values = function(points)
    if values.shape != points.shape[:1] or not values.requires_grad:
        raise ModelError(f"function: expected {len(points)} values with a gradient, got shape {tuple(values.shape)}")
    (gradient,) = torch.autograd.grad(values.sum(), points, allow_unused=True, materialize_grads=True)
    return values.detach(), gradient.flatten(1)
