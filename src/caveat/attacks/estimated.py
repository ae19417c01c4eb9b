"""PGD without a gradient: differences of the network's values stand for it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import ascend, uniform
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, log_odds
from caveat.attacks.network import Harm, checked
from caveat.attacks.noise import drawn
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["estimated"]

TINY = 1e-6
"""Stands for the radius where that is 0, in the distance at which values are compared."""


def estimated(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = log_odds,
    steps: int = 20,
    directions: int = 16,
    width: float | None = None,
) -> Float[Tensor, "n ..."]:
    """PGD with a gradient estimated from differences of values: it sees through rounding and saturation.

    Costs `steps` times (2 `directions` + 1) forward passes, and no backward pass.
    Formula: g = mean_k [f(x + w u_k) - f(x - w u_k)] u_k / (2 w), u_k random signs, f the loss; then a step of PGD.

    Parameters
    ----------
    loss
        As of `pgd`.
    directions
        Random directions per step.
    width
        The distance w, in units of the inputs; by default half of the radius in the norm inf, or what gives the same
        length in the others.

    Raises
    ------
    OptionError
        If a number is out of range.

    Source: Uesato et al., Adversarial Risk and the Dangers of Evaluating Against Weak Attacks, ICML 2018 (arXiv
    1802.05666), section 4 (SPSA).
    """
    labels = checked(model, inputs, labels)
    if directions < 1 or (width is not None and not width > 0):
        raise OptionError(f"directions, width: expected at least 1 and a number > 0, got {directions} and {width}")
    size = inputs[0].numel() if len(inputs) else 1
    reach = width or max(ball.radius, TINY) / 2 / size ** (1 / ball.norm)
    value, noise, looked = Harm(model, labels, loss), drawn(len(inputs), generator, inputs.device), 0

    def function(points: Tensor) -> Tensor:
        nonlocal looked
        if not points.requires_grad:
            return value(points)
        at = points.detach()
        with torch.no_grad():
            slope = torch.zeros_like(at)
            for k in range(directions):
                numbers = noise.uniform(size, stream=1 + looked + k)  # the first stream is that of the start
                signs = (numbers < 0.5).reshape(at.shape).to(at) * 2 - 1
                risen = value(at + reach * signs) - value(at - reach * signs)
                slope += risen.reshape(-1, *[1] * (at.ndim - 1)) * signs / (2 * reach * directions)
            here = value(at)
        looked += directions
        return here + (slope * (points - at)).flatten(1).sum(dim=1)

    step = 2.5 * ball.radius / steps if steps and ball.radius else None
    return ascend(function, inputs, ball, generator=noise, steps=steps, step=step, start=uniform).inputs
