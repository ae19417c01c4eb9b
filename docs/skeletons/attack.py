"""Two leaps along the gradient, each as far as the ball goes: an attack to copy and change."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import ascend, from_inputs
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, log_odds
from caveat.attacks.network import Harm, checked
from caveat.types import Labels

__all__ = ["leap"]


def leap(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = log_odds,
) -> Float[Tensor, "n ..."]:
    """FGSM, and FGSM once more from where it came to; the more harmful of the two points, or the input.

    Costs two backward and three forward passes. Formula: x <- argmax over the ball of <grad_x loss, x'>, twice.

    Raises
    ------
    ModelError
        If the model is in training mode, or does not give logits (n, c).
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the ball's box.

    Source: author, title, venue (arXiv number), equation.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> images, ball = torch.full((2, 1, 2, 2), 0.5), Ball(math.inf, 0.1)
    >>> found = leap(model, images, torch.tensor([0, 1]), ball, generator=torch.Generator())
    >>> bool((ball.distance(found, images) <= 0.1 + 1e-6).all())
    True
    """
    labels = checked(model, inputs, labels)
    function = Harm(model, labels, loss)
    return ascend(function, inputs, ball, generator=generator, steps=2, step=math.inf, start=from_inputs).inputs
