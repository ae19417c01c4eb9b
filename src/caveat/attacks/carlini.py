"""Carlini and Wagner's attack: the squared distance plus a price on the right answer, and the least such price."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import cosine, evaluated
from caveat.attacks.ball import Ball
from caveat.attacks.deepfool import linear_border
from caveat.attacks.losses import margin
from caveat.attacks.network import Harm, broken, checked, others_by_logit
from caveat.attacks.result import Attacked, measured, nearer
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["carlini"]

INSIDE = 1 - 1e-6  # a value at an end of the box would have no gradient there and stay for ever
OVERSHOOT = 0.02
BETA1, BETA2 = 0.9, 0.999  # of Adam


def carlini(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    *,
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 100,
    searches: int = 6,
    price: int | float = 1.0,
    rate: int | float = 0.05,
    classes: int = 9,
) -> Attacked:
    """The nearest input with another answer in the Euclidean norm, by Adam on a distance and a price.

    Thorough and dear: `searches` times `steps` forward and backward passes, and 10 forward passes before and after;
    `fmn` is mostly as near in a tenth of them. Each search begins at the nearest border of the linearised network, of
    the `classes` likeliest others, which the original does not; what comes back is never farther than that border. The
    price of the right answer is searched for each sample: ten times as large until the answer changes, then by
    bisection. Where none is found the input comes back. Nothing is random.
    Formula: argmin |x - x0|_2^2 + c max(0, z_y - max_{k != y} z_k), x = low + (high - low) (1 + tanh w) / 2.

    Parameters
    ----------
    price
        The first c.
    rate
        Of Adam, in units of w; it falls like a cosine. Where a side of the box is open w is x itself.

    Raises
    ------
    ModelError
        If the model is in training mode, does not give logits (n, c), or has no gradient.
    DataError
        If inputs or labels are not what they should be, or inputs are outside of the box.
    OptionError
        If a number is out of range.

    Source: Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, S&P 2017 (arXiv 1608.04644),
    sections V and VI.
    """
    if min(steps, searches, classes) < 1 or not 0 < price < math.inf or not 0 < rate < math.inf:
        raise OptionError(
            "steps, searches, classes, price, rate: expected three numbers of at least 1 and two above 0, got "
            f"{steps}, {searches}, {classes}, {price} and {rate}"
        )
    labels = checked(model, inputs, labels)
    box = Ball(2, 0.0, low, high)
    box.check(inputs)
    with torch.inference_mode(False), torch.enable_grad():
        centres = inputs.detach().clone()
        wrong = broken(model, centres, labels, targeted=False) if len(centres) else labels.bool()
        found = _Found(centres.clone(), torch.where(wrong, 0.0, torch.inf).to(centres.dtype))
        prices = torch.full_like(found.least, price)
        small, large = torch.zeros_like(prices), torch.full_like(prices, torch.inf)
        spent = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
        rows = (~wrong).nonzero().squeeze(1)
        others = others_by_logit(model, inputs, labels)[rows, :classes]
        begin = centres[rows]
        if len(rows):
            begin = box.boxed(linear_border(model, begin, labels[rows], others, box, overshoot=OVERSHOOT), begin)
            crossed = broken(model, begin, labels[rows], targeted=False)
            first = nearer(model, centres[rows], begin, labels[rows], crossed)
            far = (first - centres[rows]).flatten(1).norm(dim=1)
            found.points[rows], found.least[rows] = first, torch.where(crossed, far, torch.inf)
        for _ in range(searches if len(rows) else 0):
            tried = _searched(model, centres[rows], begin, labels[rows], prices[rows], box, steps, rate)
            ended, closer = tried.least.isfinite(), tried.least < found.least[rows]
            found.points[rows[closer]], found.least[rows[closer]] = tried.points[closer], tried.least[closer]
            large[rows] = torch.where(ended, prices[rows], large[rows])
            small[rows] = torch.where(ended, small[rows], prices[rows])
            prices = torch.where(large.isfinite(), (small + large) / 2, 10 * prices)
            spent[rows] += steps
        success = found.least.isfinite()
        return measured(centres, nearer(model, centres, found.points, labels, success), success, spent)


@dataclass(frozen=True)
class _Found:
    points: Tensor
    least: Tensor
    """The distance of the nearest point with another answer; inf where none was met."""


def _searched(
    model: nn.Module,
    centres: Tensor,
    begin: Tensor,
    labels: Tensor,
    prices: Tensor,
    box: Ball,
    steps: int,
    rate: float,
) -> _Found:
    """At one price a sample."""
    function, low, high = Harm(model, labels, margin), box.low, box.high
    closed = low is not None and high is not None
    middle, half = (0.0, 1.0) if low is None or high is None else ((low + high) / 2, (high - low) / 2)

    def point(w: Tensor) -> Tensor:
        return middle + half * w.tanh() if closed else box.boxed(w, centres)

    def cost(w: Tensor) -> Tensor:
        at = point(w)
        far = (at - centres).flatten(1).square().sum(1)
        return far + prices * (-function(at)).clamp_min(0)

    at = (((begin - middle) / half).clamp(-1, 1) * INSIDE).atanh() if closed else begin.clone()
    first, second = torch.zeros_like(at), torch.zeros_like(at)
    found = _Found(centres.clone(), torch.full_like(prices, torch.inf))
    for index in range(steps):
        _, gradient = evaluated(cost, at)
        with torch.no_grad():
            here = point(at)
            far = (here - centres).flatten(1).norm(dim=1)
            closer = function.ended() & (far < found.least)
            rows = closer.reshape(-1, *[1] * (centres.ndim - 1))
            found = _Found(torch.where(rows, here, found.points), torch.where(closer, far, found.least))
            first = BETA1 * first + (1 - BETA1) * gradient
            second = BETA2 * second + (1 - BETA2) * gradient.square()
            size = (second / (1 - BETA2 ** (index + 1))).sqrt() + 1e-8
            at = at - rate * cosine(index / steps) * first / (1 - BETA1 ** (index + 1)) / size
    return found
