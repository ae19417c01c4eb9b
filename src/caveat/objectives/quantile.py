"""Quantile regression: the network answers with quantiles of the label and assumes no distribution."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.objectives._outputs import outputs_for

__all__ = ["quantile"]


def quantile(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *input"],
    labels: Float[Tensor, " n"],
    generator: torch.Generator,
    *,
    levels: Sequence[float] = (0.05, 0.5, 0.95),
) -> Float[Tensor, ""]:
    """Mean pinball loss over samples and levels: minimal where output j is the `levels[j]` quantile of the label.

    One output for each level. The ends make an interval; `calibration.cqr` gives it a promise. Outputs may cross, so
    sort them before use. Nothing is drawn from the generator.

    Formula: max(τ (y - q), (τ - 1) (y - q)).

    Source: Koenker and Bassett, Regression quantiles, Econometrica 1978.

    Raises
    ------
    OptionError
        If a level is not in (0, 1), or they do not ascend.
    ModelError
        If there is not one output for each level.
    DataError
        If the labels are no real numbers `(n,)`.

    Example
    -------
    >>> q = torch.tensor([[0.0, 1.0]])
    >>> loss = quantile(nn.Identity(), q, torch.tensor([2.0]), torch.Generator(), levels=(0.5, 0.9))
    >>> round(loss.item(), 6)  # (0.5 * 2 + 0.9 * 1) / 2
    0.95
    """
    del generator
    if not levels or any(not 0 < level < 1 for level in levels) or sorted(set(levels)) != list(levels):
        raise OptionError(f"levels: expected ascending probabilities in (0, 1), got {tuple(levels)}")
    outputs = outputs_for(model, inputs, labels, what="one for each level", count=len(levels))
    share = outputs.new_tensor(levels)
    error = labels[:, None] - outputs
    return torch.maximum(share * error, (share - 1) * error).mean()
