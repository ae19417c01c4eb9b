"""Gradients of the loss with respect to the logits, whose largest entry is 1, and the factors that were taken out.

Where the probability of the target rounds to 1, the gradient rounds to 0. It is linear in the gradient at the logits,
so that one is scaled up first, and norms, extremes and mean are scaled down at the end; skewness and kurtosis know no
scale, so this is also their limit for a probability of 1.
"""

from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.types import Labels, Logits

__all__ = ["of_label", "of_uniform"]


def of_label(logits: Logits, labels: Labels) -> tuple[Float[Tensor, "n c"], Float[Tensor, " n"]]:
    """Of -log p_y: the softmax over the other classes minus the label's unit vector, and 1 - p_y; in float64."""
    logits, where = logits.double(), labels.unsqueeze(1)
    others = logits.scatter(1, where, -torch.inf)
    factor = torch.sigmoid(others.logsumexp(dim=1) - logits.gather(1, where).squeeze(1))
    return others.softmax(dim=1).scatter(1, where, -1.0), factor


def of_uniform(logits: Logits) -> tuple[Float[Tensor, "n c"], Float[Tensor, " n"]]:
    """Of -mean_k log p_k: p - 1/c over its largest absolute value, and that; in float64."""
    classes = logits.shape[1]
    gradient = torch.expm1(logits.double().log_softmax(dim=1) + log(classes)) / classes
    factor = gradient.abs().amax(dim=1)
    return gradient / factor.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1), factor
