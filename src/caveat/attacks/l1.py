"""The attack that changes few values: towards a class, with a price on the L1 size of the change."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.losses import Loss, cross_entropy
from caveat.attacks.network import Harm, broken, checked
from caveat.attacks.proximal import sparsest
from caveat.attacks.result import Attacked, measured
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["penalised", "sparse"]


def penalised(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Labels,
    *,
    penalty: int | float | Float[Tensor, " n"] = 0.1,
    loss: Loss = cross_entropy,
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 200,
) -> Attacked:
    """The change with the least loss towards the target plus `penalty` times its L1 size, within the box.

    For sparse changes at a given price. It costs up to `steps` forward and backward passes; each sample has its own
    step length and stops on its own (`attacks.proximal`). Most values of the change are exactly 0. Nothing is random.
    Formula: argmin over d of E(x + d, target) + penalty |d|_1, low <= x + d <= high.

    Parameters
    ----------
    penalty
        In nats a unit of change (with cross-entropy); one for all samples or one for each. With a penalty above the
        largest value of the gradient at the input nothing changes.
    loss
        What is made small: of the logits and the targets.

    Raises
    ------
    ModelError
        If the model is in training mode, or does not give logits (n, c).
    DataError
        If inputs or targets are not what they should be.
    OptionError
        If the penalty is negative or there is no step.

    Source: Okatani, Deep Learning (2nd edition, in Japanese), chapter 8; the steps are exact where those of EAD (Chen
    et al., AAAI 2018) as commonly coded threshold by the penalty instead of step length times penalty.
    """
    checked(model, inputs, targets)
    lowest = sparsest(Harm(model, targets, loss), inputs, penalty=penalty, low=low, high=high, steps=steps)
    found = _clipped(inputs.detach() + lowest.change.reshape(inputs.shape), inputs.detach(), low, high)
    return measured(inputs.detach(), found, broken(model, found, targets, targeted=True), lowest.steps)


def sparse(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Labels,
    *,
    loss: Loss = cross_entropy,
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 100,
    searches: int = 8,
    penalties: tuple[float, float] = (1e-3, 10.0),
) -> Attacked:
    """The same with the largest penalty that still reaches the target, searched for each sample by itself.

    Formula: argmin |d|_1 over the changes d = `penalised` of penalty p, for all p tried, that reach the target.
    Bisection of the penalty's logarithm in the given range; of all changes that reach the target the one of least L1
    size is kept (a larger penalty mostly, not always, gives it). A sample that reaches its target at no penalty tried
    comes back unchanged and marked. It costs up to `searches` times `steps` forward and backward passes; `steps` of the
    result counts them all.

    Raises
    ------
    OptionError
        If the range of penalties is empty or there is no search.

    Source: after Szegedy et al., ICLR 2014 (arXiv 1312.6199), who search the other factor of the same sum.
    """
    smallest, largest = penalties
    if not 0 < smallest < largest or searches < 1:
        raise OptionError(f"penalties, searches: expected 0 < low < high and at least 1, got {penalties}, {searches}")
    checked(model, inputs, targets)
    centres = inputs.detach()
    bottom = torch.full((len(inputs),), smallest, dtype=inputs.dtype, device=inputs.device).log()
    top = torch.full_like(bottom, largest).log()
    success = broken(model, centres, targets, targeted=True) if len(centres) else bottom > top
    found, size = centres.clone(), torch.where(success, 0.0, torch.inf).to(inputs.dtype)
    taken = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    for search in range(searches):
        rows = (bottom < top).logical_and(size > 0).nonzero().squeeze(1)
        if not len(rows):
            break
        # first the lowest price: a sample that cannot be moved even there is given up
        price = bottom[rows] if search == 0 else (bottom + top)[rows] / 2
        tried = penalised(
            model, centres[rows], targets[rows], penalty=price.exp(), loss=loss, low=low, high=high, steps=steps
        )
        better = tried.success & (tried.l1 < size[rows])
        found[rows[better]], size[rows[better]] = tried.inputs[better], tried.l1[better]
        success[rows] |= tried.success
        bottom[rows] = torch.where(tried.success, price, bottom[rows])
        top[rows] = torch.where(tried.success, top[rows], price)
        taken[rows] += tried.steps
    return measured(centres, found, success, taken)


def _clipped(points: Tensor, centres: Tensor, low: int | float | None, high: int | float | None) -> Tensor:
    """Exactly in the box; where an input is outside of it by rounding, no further out."""
    if low is not None:
        points = torch.maximum(points, centres.clamp_max(low))
    return points if high is None else torch.minimum(points, centres.clamp_min(high))
