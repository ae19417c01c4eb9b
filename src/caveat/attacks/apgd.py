"""APGD: PGD that sets its own step length, so that there is nothing to tune."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import Start, evaluated, uniform
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, dlr, dlr_towards, log_odds, towards
from caveat.attacks.network import Judge, answered, checked
from caveat.attacks.noise import Noise, drawn
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["apgd", "apgd_dlr", "apgd_targeted"]

INERTIA = 0.25  # share of the last move that goes on
RISING = 0.75  # share of steps that must have raised the loss for a step length to be kept
FIRST, FASTER, LEAST = 0.22, 0.03, 0.06  # shares of the steps until the next look: the first, less each time, no less
LOOKS_OF_1, SPARSER, SHORTEST = 0.04, 1.5, 10.0  # of norm 1: share of the steps between looks; factors
PHASES_OF_1 = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # of norm 1: multiples of the radius, and their shares of the steps


def apgd(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = log_odds,
    targeted: bool = False,
    steps: int = 100,
    restarts: int = 1,
    start: Start = uniform,
) -> Float[Tensor, "n ..."]:
    """PGD with inertia whose steps begin at twice the radius and are halved, from the best point, where they stall.

    The strongest attack at its price, without a step length to choose. Costs `restarts` times `steps` forward and
    backward passes and two forward passes; a later restart is only made for the samples that still stand. What comes
    back is a point with another answer than the label where one was met, the one of largest loss, and otherwise the
    point of largest loss, at least the input's. With the loss `log_odds` it is APGD-CE, as only the order of the loss's
    values and the direction of its gradient count; and it is not stopped by a network that is confident.
    Formula: z = P(x + h d), x' = P(x + 0.75 (z - x) + 0.25 (x - x_before)), d as in `Ball.step`; h <- h / 2 and x <-
    the best, at checkpoints, where fewer than 75 % of the steps raised the loss, or h and the best stood still. For
    norm 1 a step moves the values of largest gradient alone by the same amount, as many as the best change has, over
    1.5; it is made in balls of three, two and one times the radius in turn.

    Raises
    ------
    ModelError
        If the model is in training mode, does not give logits (n, c), or has no gradient.
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the ball's box.
    OptionError
        If there are fewer than 0 steps or less than one restart.

    Source: Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks, ICML 2020 (arXiv 2003.01690), algorithm 1; for norm 1 Croce and Hein, Mind the Box, ICML 2021 (arXiv
    2103.01208), algorithm 1.
    """
    checked(model, inputs, labels)
    climbed = towards(loss) if targeted else loss
    tries: list[Callable[[Tensor], Loss]] = [lambda rows: climbed] * restarts
    return _tried(
        model, inputs, labels, ball, tries, generator=generator, steps=steps, start=start, targeted=targeted
    )  # fmt: skip


def apgd_dlr(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = dlr,
    steps: int = 100,
    restarts: int = 1,
    start: Start = uniform,
) -> Float[Tensor, "n ..."]:
    """APGD with the margin between logits over their spread as its loss, which no scale of the logits stops.

    Finds what cross-entropy misses, at the same price. With fewer than three classes the loss is the margin.
    Formula: `apgd` with the loss (max_{k != y} z_k - z_y) / (z_(1) - z_(3)).

    Raises
    ------
    ModelError, DataError, OptionError
        As `apgd`.

    Source: Croce and Hein, ICML 2020 (arXiv 2003.01690), equation 6.
    """
    return apgd(
        model, inputs, labels, ball, generator=generator, loss=loss, steps=steps, restarts=restarts, start=start
    )  # fmt: skip


def apgd_targeted(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Callable[[Labels], Loss] | Loss = dlr_towards,
    steps: int = 100,
    targets: int = 9,
    start: Start = uniform,
) -> Float[Tensor, "n ..."]:
    """APGD towards each of the likeliest other classes in turn, on the samples that still stand.

    Any answer but the label is an end, not only the target. Costs up to `targets` times what `apgd` costs. With three
    classes the spread of the logits is z_(1) - z_(3), with two the loss is the margin.
    Formula: `apgd` with the loss (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), t the classes in the order of their
    logits at the input.

    Parameters
    ----------
    loss
        From the target classes the loss; or one that knows no target, which is then tried as often.

    Raises
    ------
    ModelError, DataError, OptionError
        As `apgd`; and if there is no target.

    Source: Croce and Hein, ICML 2020 (arXiv 2003.01690), equation 7.
    """
    checked(model, inputs, labels)
    if targets < 1:
        raise OptionError(f"targets: expected at least 1, got {targets}")
    if not len(inputs):
        return inputs.clone()
    with torch.no_grad():
        logits = answered(model, inputs)
        Judge(model, labels, log_odds).check(logits)
        others = logits.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]

    def of_target(k: int) -> Callable[[Tensor], Loss]:
        return lambda rows: loss(others[rows, k]) if loss is dlr_towards else loss

    tries = [of_target(k) for k in range(min(targets, others.shape[1]))]
    return _tried(model, inputs, labels, ball, tries, generator=generator, steps=steps, start=start, targeted=False)
