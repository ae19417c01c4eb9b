"""Cross-entropy: ordinary training."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.types import Labels

__all__ = ["cross_entropy"]


def cross_entropy(
    model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the batch, in nats; one forward pass.

    Formula: mean_i -log softmax(f(x_i))[y_i]. It is 0 only for certain and right answers; ln c for c classes when the
    network answers uniformly. Nothing is drawn from the generator: it is there because every objective has one.

    Source: I. Goodfellow, Y. Bengio and A. Courville, Deep Learning, 2016, section 6.2.2.3.
    """
    del generator
    return functional.cross_entropy(model(inputs), labels)
