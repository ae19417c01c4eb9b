"""FGSM: one step of the input along the gradient, as far as the ball goes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import Start, ascend, from_inputs
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, log_odds, towards
from caveat.attacks.network import Harm, checked
from caveat.types import Labels

__all__ = ["fgsm"]


def fgsm(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = log_odds,
    targeted: bool = False,
    step: int | float = math.inf,
    start: Start = from_inputs,
) -> Float[Tensor, "n ..."]:
    """One step: to the point of the ball where the loss would be largest if it were linear.

    The cheapest attack, one backward and two forward passes: a lower mark of harm, and what fast adversarial training
    uses (with `start=uniform` and a step of 1.25 radius). An input that the step does not harm comes back unchanged.
    Formula: clip(x + radius sign(grad_x loss)) for norm inf; for 2 along the gradient; for 1 the values of largest
    gradient, each as far as the box allows.

    Parameters
    ----------
    labels
        The true ones; when `targeted`, the answers that are wanted.
    loss
        Of `attacks.losses`, or any function `(logits, labels) -> (n,)` that grows with the harm.
    step
        Length of the step; inf for as far as the ball goes.
    start
        `from_inputs`; `uniform` for a random start (Wong, Rice and Kolter, ICLR 2020).

    Raises
    ------
    ModelError
        If the model is in training mode, or does not give logits (n, c).
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the ball's box.

    Source: Goodfellow, Shlens and Szegedy, ICLR 2015 (arXiv 1412.6572).
    """
    labels = checked(model, inputs, labels)
    function = Harm(model, labels, towards(loss) if targeted else loss)
    return ascend(function, inputs, ball, generator=generator, steps=1, step=step, start=start).inputs
