"""How small a ball is enough: the radius bisected, sample by sample, with any attack in a ball."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ball import Ball
from caveat.attacks.network import broken, checked
from caveat.attacks.pgd import pgd
from caveat.attacks.result import Attacked, measured
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["smallest_radius"]


def smallest_radius(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    attack: Callable[..., Tensor] = pgd,
    rounds: int = 8,
) -> Attacked:
    """The smallest change with another answer that an attack finds in balls up to the given one.

    Turns any row of `IN_BALL` or `QUERY` into an attack without a radius; `MINIMAL` has cheaper ones. Costs up to
    `rounds` + 1 attacks: samples that stand at the same radius are attacked together. The radius is known to the
    ball's over 2 to the power of `rounds`, and the result's distances are those of the changes that were found. Samples
    that stand in the whole ball come back unchanged; those that are wrong from the start have distance 0. `steps`
    counts attacks.
    Formula: bisection of r in [0, radius] for the least r at which attack(B(x, r)) changes the answer.

    Raises
    ------
    OptionError
        If there is no round.
    ModelError, DataError
        As the attack does.

    Source: bisection over the radius as in Foolbox (Rauber et al., JOSS 2020).
    """
    if rounds < 1:
        raise OptionError(f"rounds: expected at least 1, got {rounds}")
    labels = checked(model, inputs, labels)
    ball.check(inputs)
    centres = inputs.detach().clone()
    found = centres.clone()
    success = broken(model, centres, labels, targeted=False) if len(centres) else labels.bool()
    spent = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    cells = 2**rounds  # radii are multiples of the ball's over this many; low stands, high is broken
    low, high = torch.zeros_like(spent), torch.where(success, 0, cells + 1)
    while True:
        open_rows = high - low > 1
        if not bool(open_rows.any()):
            break
        at = torch.where(high > cells, cells, (low + high) // 2)
        for cell in at[open_rows].unique().tolist():
            rows = (open_rows & (at == cell)).nonzero().squeeze(1)
            smaller = ball.resized(ball.radius * cell / cells)
            tried = attack(model, centres[rows], labels[rows], smaller, generator=generator)
            hit = broken(model, tried, labels[rows], targeted=False)
            found[rows[hit]], success[rows[hit]] = tried[hit], True
            high[rows[hit]] = cell
            low[rows[~hit]] = cell
            spent[rows] += 1
    return measured(centres, found, success, spent)
