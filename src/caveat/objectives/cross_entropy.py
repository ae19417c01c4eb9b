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
    """Mean of -log softmax(model(inputs))[label] over the batch, in nats; one forward pass.

    It is 0 only for certain and right answers; ln c for c classes when the network answers uniformly. Nothing is drawn
    from the generator: it is there because every objective has one.
    """
    del generator
    return functional.cross_entropy(model(inputs), labels)
