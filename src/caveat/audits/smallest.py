"""The smallest adversarial perturbations: the nearest input with another answer that is found, of right answers."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from caveat.attacks import fmn
from caveat.attacks.ball import Ball
from caveat.attacks.network import broken
from caveat.attacks.result import nearer
from caveat.audits.pictures import mistake
from caveat.records.attack import Perturbation, Smallest

__all__ = ["STEPS", "smallest"]

STEPS = 100
PART = 64
"""Inputs that are attacked at once."""


def smallest(  # noqa: PLR0913  # what an attack is made of
    model: nn.Module,
    clean: Tensor,
    labels: Tensor,
    ball: Ball,
    *,
    reached: Tensor,
    masked: Tensor,
    places: Tensor,
    names: Sequence[str],
    pictures: int = 12,
    say: Callable[[str], None],
) -> Smallest:
    """Look for the nearest input with another answer by FMN, in the norm and box of `ball`, whose radius is not used.

    FMN is the best minimum-norm attack of ours at its price, in every norm. Where what an attack in a ball has
    `reached` lies nearer once it is brought back as far as its answer stays, that counts; where the gradient is masked,
    that alone. Every distance is of an input that the model itself answers otherwise: an upper bound of the smallest.

    Parameters
    ----------
    clean, labels
        Inputs that are answered rightly.
    reached
        For each, where another attack has come to, with another answer or not.
    masked
        Where the gradient is zero.
    places
        In the set.
    pictures
        How many are shown; without pictures, as many are named.
    """
    say(f"looking for the smallest adversarial perturbations of {len(clean)} inputs")
    found = nearer(model, clean, reached, labels, broken(model, reached, labels, targeted=False))
    for rows in (~masked).nonzero().squeeze(1).split(PART):
        if not len(rows):
            continue
        walked = fmn(
            model, clean[rows], labels[rows], norm=ball.norm, low=ball.low, high=ball.high, steps=STEPS
        ).inputs  # fmt: skip
        far = _distances(model, walked, clean[rows], labels[rows], ball)
        closer = far < _distances(model, found[rows], clean[rows], labels[rows], ball)
        found[rows[closer]] = walked[closer]
    far = _distances(model, found, clean, labels, ball)
    order = far.argsort(stable=True)[: int(far.isfinite().sum())]
    return Smallest(
        attack=f"FMN, {STEPS} steps",
        samples=len(clean),
        found=len(order),
        masked=int(masked.sum()),
        quartiles=_quartiles(far),
        nearest=_shown(model, clean, found, far, order[:pictures], labels, places, names),
    )


def _distances(model: nn.Module, points: Tensor, centres: Tensor, labels: Tensor, ball: Ball) -> Tensor:
    """How far points with another answer are; infinite where the answer is the label."""
    return torch.where(
        broken(model, points, labels, targeted=False), ball.distance(points, centres).double(), torch.inf
    )


def _quartiles(far: Tensor) -> list[float | None]:
    """The least distance that a quarter, half and three quarters of the inputs do not exceed; None where it is inf."""
    ordered = far.sort().values.tolist()
    found = [ordered[math.ceil(share * len(ordered)) - 1] for share in (0.25, 0.5, 0.75)] if ordered else [math.inf] * 3
    return [value if math.isfinite(value) else None for value in found]


def _shown(
    model: nn.Module,
    clean: Tensor,
    found: Tensor,
    far: Tensor,
    order: Tensor,
    labels: Tensor,
    places: Tensor,
    names: Sequence[str],
) -> list[Perturbation]:
    shown = [(row, mistake(model, clean[row], found[row], int(labels[row]), names)) for row in order.tolist()]
    return [Perturbation(index=int(places[k]), distance=float(far[k]), **one._asdict()) for k, one in shown]
