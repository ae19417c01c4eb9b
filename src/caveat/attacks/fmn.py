"""FMN: climb within a ball that shrinks while the answer is another one, and grows while it is not."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import cosine, evaluated
from caveat.attacks.ball import Ball
from caveat.attacks.deepfool import DUAL, linear_border
from caveat.attacks.losses import margin, towards
from caveat.attacks.network import Harm, broken, checked, others_by_logit
from caveat.attacks.result import Attacked, measured, nearer
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["fmn"]


def fmn(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    *,
    norm: int | float = 2,
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 100,
    step: int | float | None = None,
    targeted: bool = False,
    classes: int = 9,
    rate: tuple[float, float] = (0.05, 0.001),
) -> Attacked:
    """The nearest input with another answer, by a walk along the border of the two answers.

    The best minimum-norm attack at its price: one forward and backward pass a step, `classes` backward passes first,
    and 10 forward passes in the end, which bring the point found back towards the input as far as its answer stays. Its
    distance is an upper bound of the true one. The walk begins at the nearest border of the linearised network, which
    the original does not: so it follows the border of the nearest class, and is exact where the network is linear.
    Nothing is random.
    Formula: x <- P(x + a g / |g|_2), P into box and ball of radius r around x0, g the gradient, 0 where the box leaves
    no room (the original clips when it has projected, and in norm 1 stands still on dark pictures); r <- min(r (1 - c),
    the smallest found) where x has another answer, r (1 + c) where it has not, and before any was found |x - x0| +
    |f| / |grad f|_dual, the distance to the border were f, the margin, linear. a and c fall like a cosine.

    Parameters
    ----------
    labels
        The true ones; when `targeted`, the answers that are wanted.
    norm
        1, 2 or inf.
    step
        Length of the first step a, in the Euclidean norm. Without one 1, and for norm 1, where the projection takes
        most of it back, 3: the change is sparser and smaller.
    classes
        How many of the likeliest other classes are looked at first; when `targeted`, the wanted one alone.
    rate
        The first and the last c.

    Raises
    ------
    ModelError
        If the model is in training mode, does not give logits (n, c), or has no gradient.
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the box.
    OptionError
        If a number is out of range.

    Source: Pintor, Roli, Brendel and Biggio, Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints,
    NeurIPS 2021 (arXiv 2102.12827), algorithm 1.
    """
    step = (3.0 if norm == 1 else 1.0) if step is None else step
    if steps < 1 or classes < 1 or not 0 < step < math.inf or not 0 < rate[1] <= rate[0] < 1:
        raise OptionError(
            "steps, classes, step, rate: expected at least 1, at least 1, a number > 0 and 1 > first >= last > 0, got "
            f"{steps}, {classes}, {step} and {rate}"
        )
    labels = checked(model, inputs, labels)
    box = Ball(norm, 0.0, low, high)
    box.check(inputs)
    with torch.inference_mode(False), torch.enable_grad():
        centres = inputs.detach().clone()
        function = Harm(model, labels, towards(margin) if targeted else margin)
        success = broken(model, centres, labels, targeted=targeted) if len(centres) else labels.bool()
        found, least = centres.clone(), torch.where(success, 0.0, torch.inf).to(centres.dtype)
        begin = _begin(model, centres, labels, box, rate[0], classes, targeted=targeted) if len(centres) else centres
        radius, points = least, box.boxed(begin, centres)
        for index in range(steps if len(centres) else 0):
            values, gradient = evaluated(function, points)
            gradient = box.slopes(points, gradient).copysign_(gradient)  # a step into a face of the box is lost
            ended, distance = function.ended(targeted=targeted), box.distance(points, centres)
            closer = ended & (distance < least)
            found = torch.where(closer.reshape(-1, *[1] * (centres.ndim - 1)), points, found)
            least, success = torch.where(closer, distance, least), success | ended
            share = cosine(index / steps)
            change = rate[1] + (rate[0] - rate[1]) * share
            slope = torch.linalg.vector_norm(gradient.flatten(1), DUAL[norm], dim=1)
            linear = distance + values.abs() / slope.clamp_min(torch.finfo(slope.dtype).tiny)
            wider = (1 + change) * torch.where(success, radius, linear)  # beyond the border, not onto it
            radius = torch.where(ended, torch.minimum(radius * (1 - change), least), wider)
            move = step * (0.01 + 0.99 * share) * _unit(gradient)
            points = box.within(points + move, centres, radius)
        spent = torch.full(success.shape, steps, dtype=torch.int64, device=centres.device)
        return measured(centres, nearer(model, centres, found, labels, success, targeted=targeted), success, spent)


def _begin(
    model: nn.Module, centres: Tensor, labels: Tensor, box: Ball, overshoot: float, classes: int, *, targeted: bool
) -> Tensor:
    """The nearest border of the linearised network, to any of the likeliest classes or to the one that is wanted."""
    if targeted:
        now = Harm(model, labels, margin)
        with torch.no_grad():
            now(centres)
        return linear_border(model, centres, now.logits.argmax(1), labels[:, None], box, overshoot=overshoot)
    others = others_by_logit(model, centres, labels)[:, :classes]
    return linear_border(model, centres, labels, others, box, overshoot=overshoot)


def _unit(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    return (flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(1)).reshape(gradient.shape)
