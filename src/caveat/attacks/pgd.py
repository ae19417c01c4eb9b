"""PGD: many small steps along the gradient, each projected back into the ball."""

from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import Function, Schedule, Start, Summit, ascend, constant, cosine, uniform
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, soft_margin, towards
from caveat.attacks.network import Harm, broken, checked
from caveat.attacks.noise import Noise, drawn
from caveat.errors import CaveatWarning, OptionError
from caveat.types import Labels

__all__ = ["pgd"]


def pgd(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = soft_margin,
    targeted: bool = False,
    steps: int = 40,
    step: int | float | None = None,
    restarts: int = 1,
    momentum: int | float = 0.0,
    schedule: Schedule = cosine,
    start: Start = uniform,
    best: bool = True,
    skip_broken: bool = False,
) -> Float[Tensor, "n ..."]:
    """The most harmful input found in the ball around each input.

    The standard first-order attack. It costs `restarts` times `steps` forward and backward passes and a few forward
    passes. What comes back is never less harmful than the input; where nothing was gained it is the input itself.
    Formula: x <- clip(P(x + step g)), g the direction in which the loss rises most for a step of norm 1, P the
    projection into the ball. `attacks.ascent` says how steps are made, and why a sample's result does not depend on its
    batch.

    Parameters
    ----------
    labels
        The true ones; when `targeted`, the answers that are wanted.
    loss
        Of `attacks.losses`, or any function `(logits, labels) -> (n,)` that grows with the harm. The default breaks
        more than cross-entropy and the margin do, and is not stopped by a network that is confident.
    step
        Length of the first step. Without one the radius, or for norm 1 a quarter of it, if the schedule brings it down;
        with the schedule `constant` 2.5 radius / steps (for norm 1 at least radius / 10), as usual before.
    schedule
        By default steps become shorter like a cosine: at the same price stronger than steps of one length, and as
        strong as APGD, in norm 1 nearly (`benchmarks/attacks.py`).
    momentum, start, restarts, best
        As in `attacks.ascent.ascend`.
    skip_broken
        Leave samples alone once a restart has changed their answer (or they were wrong before): cheaper, and the same
        answers are broken, but not as far. (It shows from the second restart on.)

    Raises
    ------
    ModelError
        If the model is in training mode, or does not give logits (n, c).
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the ball's box.
    OptionError
        If a number is out of range.

    Source: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018 (arXiv 1706.06083).
    """
    labels = checked(model, inputs, labels)
    climbed = towards(loss) if targeted else loss
    if skip_broken and not best:
        raise OptionError("skip_broken: expected best=True with it: what is broken must be known")
    if step is None and ball.radius and steps:
        step = _length(ball, steps, schedule)
    noise, first_slopes = drawn(len(inputs), generator, inputs.device), list[Tensor]()

    def climb(rows: Tensor, *, first: int, times: int) -> Summit:
        def begin(ball: Ball, centres: Tensor, own: Noise, restart: int) -> Tensor:
            return start(ball, centres, own, first + restart)

        function = _noting(Harm(model, labels[rows], climbed), first_slopes)
        return ascend(
            function, inputs[rows], ball, generator=noise.of(rows), steps=steps, step=step,
            restarts=times, momentum=momentum, schedule=schedule, start=begin, best=best,
        )  # fmt: skip

    found = climb(torch.arange(len(inputs), device=inputs.device), first=0, times=1 if skip_broken else restarts)
    for restart in range(1, restarts if skip_broken else 0):
        rows = (~broken(model, found.inputs, labels, targeted=targeted)).nonzero().squeeze(1)
        if not len(rows):
            break
        found = found.improved(climb(rows, first=restart, times=1), rows)
    if first_slopes and not bool(first_slopes[0].any()):
        hint = "nothing was attacked; see attacks.without_gradient"
        warn(f"pgd: the gradient is zero at all {len(inputs)} inputs: {hint}", CaveatWarning, stacklevel=2)
    return found.inputs


def _length(ball: Ball, steps: int, schedule: Schedule) -> float:
    if schedule is not constant:
        return ball.radius / 4 if ball.norm == 1 else ball.radius
    return max(2.5 * ball.radius / steps, ball.radius / 10 if ball.norm == 1 else 0.0)


def _noting(function: Function, first: list[Tensor]) -> Function:
    """The same function; the gradient of its first differentiation is put on the list, which costs no other pass."""

    def noted(points: Tensor) -> Tensor:
        if points.requires_grad and not first:
            points.register_hook(lambda gradient: None if first else first.append(gradient))
        return function(points)

    return noted
