"""Climb a function of the input within a ball: what PGD, ACET's inner maximum and adversarial training share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from caveat.attacks.ball import Ball
from caveat.attacks.noise import Noise, drawn
from caveat.errors import ModelError, OptionError

__all__ = [
    "Function",
    "Schedule",
    "Start",
    "Summit",
    "above",
    "ascend",
    "constant",
    "cosine",
    "evaluated",
    "from_inputs",
    "shrunk",
    "uniform",
]

Function: TypeAlias = Callable[[Tensor], Tensor]
"""Of inputs (n, ...) the value (n,) to climb; a sample's value depends on that sample alone."""
Start: TypeAlias = Callable[[Ball, Tensor, Noise, int], Tensor]
"""Of the ball, its centres, the samples' numbers and the restart, where to begin."""
Schedule: TypeAlias = Callable[[float], float]
"""Of the share of steps done, in [0, 1), what the step is multiplied with."""


@dataclass(frozen=True)
class Summit:
    """The best points found, and their values."""

    inputs: Shaped[Tensor, "n ..."]
    values: Float[Tensor, " n"]

    def better(self, inputs: Tensor, values: Tensor) -> "Summit":
        """Sample by sample the better of two; NaN is never better."""
        wins = above(values, self.values)
        rows = wins.reshape(-1, *[1] * (inputs.ndim - 1))
        return Summit(torch.where(rows, inputs.detach(), self.inputs), torch.where(wins, values, self.values))

    def improved(self, other: "Summit", rows: Tensor) -> "Summit":
        """The same where `other` holds only some of the samples."""
        part = Summit(self.inputs[rows], self.values[rows]).better(other.inputs, other.values)
        return Summit(self.inputs.index_copy(0, rows, part.inputs), self.values.index_copy(0, rows, part.values))


def above(values: Tensor, others: Tensor) -> Tensor:
    """Larger by more than rounding, on which no choice may rest: a sample's course would depend on its batch."""
    slack = 16 * torch.finfo(values.dtype).eps * others.abs()
    return values > others + torch.where(others.isfinite(), slack, 0)


def from_inputs(ball: Ball, centres: Tensor, noise: Noise, restart: int) -> Tensor:
    """Begin at the given inputs; the second and later restarts begin at a uniform point."""
    return uniform(ball, centres, noise, restart) if restart else centres.clone()


def uniform(ball: Ball, centres: Tensor, noise: Noise, restart: int) -> Tensor:
    """Begin at a uniform point of the ball (Madry et al., ICLR 2018)."""
    return ball.sample_from(centres, noise, stream=restart)


def shrunk(ball: Ball, centres: Tensor, noise: Noise, restart: int) -> Tensor:
    """Begin in a ball whose radius is itself uniform in (0, radius), for each sample (ACET's start)."""
    return ball.sample_from(centres, noise, stream=restart, shrunk=True)


def constant(share: float) -> float:
    """All steps are as long."""
    del share
    return 1.0


def cosine(share: float) -> float:
    """From the full step down to almost none."""
    return 0.5 * (1 + math.cos(math.pi * share))


def ascend(  # noqa: PLR0913 -- each is one independent choice
    function: Function,
    inputs: Float[Tensor, "n ..."],
    ball: Ball,
    *,
    generator: torch.Generator | Noise,
    steps: int = 40,
    step: int | float | None = None,
    restarts: int = 1,
    momentum: int | float = 0.0,
    schedule: Schedule = constant,
    start: Start = shrunk,
    best: bool = True,
) -> Summit:
    """Maximise `function` in the ball around each input, by steps of steepest ascent and projection.

    The best point met is what comes back, whatever came after it; inputs and starts count too, so the value is never
    below that of the inputs, rounding apart, and more steps (of the same length) or restarts never lower it. Nothing is
    shared between samples: no stopping by a sum, and random numbers that belong to the sample (`attacks.noise`). So
    with a model in eval mode a sample's result does not depend on its batch, but for the rounding of its arithmetic.

    A step costs one forward and one backward pass of `function` to the inputs (gradients of parameters are neither made
    nor touched); besides, a restart costs one forward pass for its last point, and the inputs
    one unless they are the start.
    Formula: m <- momentum m + g / mean|g|;  x <- P(x + step d), P the projection on ball and box, d = sign(m) for inf,
    m / |m| for 2, m / max|m| for 1 (`Ball.step`).

    Parameters
    ----------
    generator
        One number a sample is drawn from it; or the samples' own noise.
    step
        Length of a step in the ball's norm. Without one: radius / steps for inf, as in ACET; 2.5 radius / steps for the
        others, at least radius / 10 for 1, where it is that of the value that moves most. With inf a step goes to the
        point of the ball that is furthest along the gradient.
    momentum
        0 for none; 1 adds up all gradients (Dong et al., CVPR 2018).
    schedule
        `constant` or `cosine`, or any function of the share of steps done.
    start
        `shrunk` as in ACET, `uniform` as usual for PGD, or `from_inputs`.
    best
        False for the last point, whatever it is worth, as often in adversarial training: two forward passes less, and
        none of the promises above. Its value is not computed (NaN), and there can be one start only.

    Raises
    ------
    OptionError
        If a number is out of range.
    DataError
        If the inputs are outside of the box.
    ModelError
        If the function gives no value per sample, NaN, or one that does not depend on the inputs.

    Source: Madry et al., ICLR 2018 (arXiv 1706.06083); Hein, Andriushchenko and Bitterwolf, CVPR 2019, whose own code
    takes two forward passes a step.
    """
    _check(steps, step, restarts, momentum)
    if not best and restarts > 1:
        raise OptionError(f"restarts: expected 1 where the last point is wanted, not the best, got {restarts}")
    ball.check(inputs)
    # inputs made under inference_mode cannot be differentiated; a copy made here can
    with torch.inference_mode(False), torch.enable_grad():
        centres = inputs.detach().clone()
        noise = generator if isinstance(generator, Noise) else drawn(len(centres), generator, centres.device)
        length = _length(ball, steps) if step is None else step
        found, project = None, ball.projector(centres)
        for restart in range(restarts if steps and ball.radius and len(centres) else 0):
            points, velocity = start(ball, centres, noise, restart), None
            if best and found is None and not torch.equal(points, centres):
                found = _at(function, centres)
            for index in range(steps):
                values, gradient = evaluated(function, points)
                if best:
                    found = found.better(points, values) if found else _first(points, values)
                velocity = _velocity(velocity, gradient, momentum)
                if length == math.inf:
                    points = ball.furthest(centres, velocity)
                else:
                    points = project(ball.step(points, velocity, length * schedule(index / steps)))
            if not best:
                return Summit(points, torch.full_like(points.flatten(1)[:, 0], math.nan))
            with torch.no_grad():
                values = _checked(function(points), points)
            found = found.better(points, values) if found else _first(points, values)
        return found or _at(function, centres)


def _at(function: Function, centres: Tensor) -> Summit:
    """The inputs themselves."""
    with torch.no_grad():
        return _first(centres, _checked(function(centres), centres))


def _first(centres: Tensor, values: Tensor) -> Summit:
    if bool(values.isnan().any()):
        raise ModelError(
            "function: its value (of a model, the loss) is NaN at some of the points: look for NaN or an overflow there"
        )
    return Summit(centres, values)


def _length(ball: Ball, steps: int) -> float:
    length = ball.radius / max(steps, 1)
    if ball.norm == math.inf:
        return length
    return max(2.5 * length, ball.radius / 10) if ball.norm == 1 else 2.5 * length


def evaluated(function: Function, points: Tensor) -> tuple[Tensor, Tensor]:
    """Values and gradients at once.

    Raises
    ------
    ModelError
        If the function gives no value per sample, or one that does not depend on the inputs.
    """
    points = points.detach().requires_grad_()
    values = _checked(function(points), points)
    connected = values.requires_grad
    gradient = torch.autograd.grad(values.sum(), points, allow_unused=True)[0] if connected else None
    if gradient is None:
        raise ModelError("function: its value has no gradient: the model detaches, rounds or ignores its inputs")
    return values.detach(), gradient


def _velocity(before: Tensor | None, gradient: Tensor, momentum: float) -> Tensor:
    if not momentum:  # a step's direction does not depend on the gradient's size
        return gradient
    size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    unit = gradient / size.reshape(-1, *[1] * (gradient.ndim - 1))
    return unit if before is None else momentum * before + unit


def _checked(values: Tensor, points: Tensor) -> Tensor:
    if values.shape != points.shape[:1]:
        raise ModelError(f"function: expected one value for each of {len(points)} inputs, got {tuple(values.shape)}")
    return values


def _check(steps: int, step: int | float | None, restarts: int, momentum: int | float) -> None:
    if steps < 0 or restarts < 1:
        raise OptionError(f"steps, restarts: expected at least 0 and 1, got {steps} and {restarts}")
    if step is not None and not step > 0:
        raise OptionError(f"step: expected a number > 0, got {step}")
    if not 0 <= momentum < math.inf:
        raise OptionError(f"momentum: expected a number >= 0, got {momentum}")
