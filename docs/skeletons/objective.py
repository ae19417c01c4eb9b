"""The Brier score as a loss: an objective to copy and change."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.types import Labels

__all__ = ["squared_error"]


def squared_error(
    model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
) -> Float[Tensor, ""]:
    """Mean squared distance of the probabilities to the one-hot labels; one forward pass.

    Bounded, so that a label that is wrong costs little. Formula: mean_i sum_k (p_ik - 1[y_i = k])^2, in [0, 2]. Nothing
    is drawn from the generator: it is there because every objective has one.

    Source: author, title, venue (arXiv number), equation.

    >>> logits, labels = torch.zeros(1, 2), torch.tensor([0])
    >>> squared_error(nn.Identity(), logits, labels, torch.Generator())
    tensor(0.5000)
    """
    del generator
    probs = model(inputs).softmax(dim=1)
    return (probs - functional.one_hot(labels, probs.shape[1])).square().sum(dim=1).mean()
