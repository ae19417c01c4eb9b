"""The mean of several predictive distributions, as logits."""

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.precision import wide

__all__ = ["log_mean", "log_probs"]


def log_probs(draws: Float[Tensor, "s n c *pixels"]) -> Float[Tensor, "s n c *pixels"]:
    """Log-probabilities of every draw; those of impossible classes are the lowest finite number, not -inf."""
    logs = wide(draws).log_softmax(dim=2)
    return logs.clamp_min(torch.finfo(logs.dtype).min)


def log_mean(draws: Float[Tensor, "s n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
    """Log of the mean of the draws' probabilities: logits whose softmax is the mixture.

    Probabilities are averaged, not logits. Relative to the largest draw of each class, so that the mean of identical
    draws is each of them to the last bit.

    >>> log_mean(torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]])).exp()
    tensor([[0.5000, 0.5000]])
    """
    logs = log_probs(draws)
    top = logs.amax(dim=0)
    return top + (logs - top).exp().mean(dim=0).log()
