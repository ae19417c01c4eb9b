"""The attacks that change few values: towards a class, with a price on the L1 size of the change or the least one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.fmn import fmn
from caveat.attacks.losses import Loss, cross_entropy
from caveat.attacks.network import Harm, broken, checked
from caveat.attacks.proximal import sparsest
from caveat.attacks.result import Attacked, measured
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
    targets = checked(model, inputs, targets)
    lowest = sparsest(Harm(model, targets, loss), inputs, penalty=penalty, low=low, high=high, steps=steps)
    found = _clipped(inputs.detach() + lowest.change.reshape(inputs.shape), inputs.detach(), low, high)
    return measured(inputs.detach(), found, broken(model, found, targets, targeted=True), lowest.steps)


def sparse(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Labels,
    *,
    low: int | float | None = 0.0,
    high: int | float | None = 1.0,
    steps: int = 100,
) -> Attacked:
    """The smallest change in L1 that reaches the target, which changes few values: `fmn` in norm 1, towards the target.

    Without a price to choose, and for one forward and backward pass a step (a search for the largest penalty of
    `penalised` that reaches the target takes eight times as many, and its changes are larger). A sample that does not
    reach its target comes back unchanged and marked.
    Formula: argmin |d|_1 over the changes d that reach the target, low <= x + d <= high.

    Raises
    ------
    ModelError, DataError, OptionError
        As `fmn`.

    Source: Pintor, Roli, Brendel and Biggio, NeurIPS 2021 (arXiv 2102.12827), algorithm 1.
    """
    return fmn(model, inputs, targets, norm=1, low=low, high=high, steps=steps, targeted=True)


def _clipped(points: Tensor, centres: Tensor, low: int | float | None, high: int | float | None) -> Tensor:
    """Exactly in the box; where an input is outside of it by rounding, no further out."""
    if low is not None:
        points = torch.maximum(points, centres.clamp_max(low))
    return points if high is None else torch.minimum(points, centres.clamp_min(high))
