"""The strongest attack: several that fail in different ways, each on what the others have left, and what to doubt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.attacks.apgd import apgd, apgd_targeted
from caveat.attacks.ball import Ball
from caveat.attacks.fmn import fmn
from caveat.attacks.masking import without_gradient
from caveat.attacks.network import answered, broken, checked, masked
from caveat.attacks.square import square
from caveat.errors import OptionError, known_name
from caveat.types import Labels, Mask

__all__ = ["MEMBERS", "Struck", "strongest", "warnings_of"]

MEMBERS = ("apgd", "apgd_targeted", "fmn", "square")
"""AutoAttack's standard recipe, with FMN where it has FAB."""
LARGE = 1e4
"""A spread of logits at which single precision no longer tells the losses of near points apart."""


@dataclass(frozen=True)
class Struck:
    """What the attacks found, and what a reader must know about it."""

    inputs: Shaped[Tensor, "n ..."]
    """In the ball; where `broken` is false the inputs that were given."""
    broken: Mask
    """Answered wrongly, before the attack already or by one of the members: the rest is the robust accuracy, an upper
    bound."""
    by: Sequence[str]
    """For each sample the member that broke it; "" where none did, "none" where the answer was wrong before."""
    notes: Sequence[str]
    """Why the network may look more robust than it is; empty if nothing speaks for that."""


def strongest(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    members: Sequence[str] = MEMBERS,
    steps: int = 100,
    queries: int = 5000,
) -> Struck:
    """APGD, targeted APGD, FMN and Square in turn, each on the samples that still stand.

    For the figure of a paper or a release: nothing to tune, and dear where a network is robust (about 1,100 forward and
    backward passes and 5,000 forward passes for a sample that stands). Works with two classes and more. Where the
    gradient is zero, `without_gradient` takes the place of the gradient attacks. The notes say what AutoAttack warns
    of: a network that answers at random, a gradient that is zero, logits that are probabilities or of absurd range, and
    that only Square, which needs no gradient, broke something.
    Formula: broken = any member finds a point of the ball with another answer.

    Raises
    ------
    ModelError, DataError
        As `apgd`.
    OptionError
        If there is no such member, or a number is out of range.

    Source: Croce and Hein, ICML 2020 (arXiv 2003.01690), section 4; the warnings are those of its authors' code.
    """
    for name in members:
        known_name("members", name, MEMBERS)
    if not members:
        raise OptionError(f"members: expected some of {', '.join(MEMBERS)}, got none")
    labels = checked(model, inputs, labels)
    ball.check(inputs)
    found, by = inputs.detach().clone(), [""] * len(inputs)
    if not len(inputs):
        return Struck(found, labels.bool(), by, ())
    done, blind = broken(model, found, labels, targeted=False), masked(model, found, labels)
    for row in done.nonzero().squeeze(1).tolist():
        by[row] = "none"
    for name in ("without_gradient", *members):
        rows = ~done & {"without_gradient": blind, "square": torch.ones_like(done)}.get(name, ~blind)
        at = rows.nonzero().squeeze(1)
        if not len(at):
            continue
        moved = _attacked(name, model, inputs[at], labels[at], ball, generator, steps, queries)
        hit = broken(model, moved, labels[at], targeted=False)
        found[at[hit]], done[at[hit]] = moved[hit], True
        for row in at[hit].tolist():
            by[row] = name
    return Struck(found, done, by, warnings_of(model, inputs, blind, by))


def _attacked(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    ball: Ball,
    generator: torch.Generator,
    steps: int,
    queries: int,
) -> Tensor:
    if name == "without_gradient":
        return without_gradient(model, inputs, labels, ball, generator=generator)
    if name == "square":
        return square(model, inputs, labels, ball, generator=generator, queries=queries)
    if name == "fmn":
        near = fmn(model, inputs, labels, norm=ball.norm, low=ball.low, high=ball.high, steps=max(steps, 1))
        return ball.project(near.inputs, inputs.detach())
    attack = apgd if name == "apgd" else apgd_targeted
    return attack(model, inputs, labels, ball, generator=generator, steps=steps)


def warnings_of(model: nn.Module, inputs: Tensor, blind: Tensor, by: Sequence[str] = ()) -> tuple[str, ...]:
    """What makes a network look more robust than it is, in sentences."""
    with torch.no_grad():
        first, second = answered(model, inputs), answered(model, inputs)
    notes: list[str] = []
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        notes.append(
            "Two passes over the same inputs give different logits: the network is random, and an attack that does not "
            "average over many passes finds too little. Attack the mean of its answers."
        )
    if bool(blind.any()):
        notes.append(
            f"The gradient with respect to the input is zero or not finite at {int(blind.sum())} of {len(blind)} "
            "inputs (the network rounds, saturates or detaches its inputs): they were attacked without it, but may "
            "look more robust than they are."
        )
    if bool(((first >= 0) & (first <= 1)).all()) and torch.allclose(
        first.sum(1), torch.ones_like(first[:, 0]), atol=1e-4
    ):
        notes.append(
            "The logits look like probabilities (in [0, 1], with sum 1): the gradient of a saturated softmax vanishes. "
            "Attack the network without its last softmax."
        )
    spread = float((first.amax(1) - first.amin(1)).nan_to_num(nan=math.inf).max())
    if spread > LARGE:
        notes.append(
            f"The logits of a sample differ by up to {spread:.3g}: rounding hides what the attacks climb. Divide the "
            "logits by a constant, which changes no answer."
        )
    if "square" in by:
        notes.append(
            f"Square, which needs no gradient, broke {by.count('square')} samples that the gradient attacks had left: "
            "the gradient may be masked."
        )
    return tuple(notes)
