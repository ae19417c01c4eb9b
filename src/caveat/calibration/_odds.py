"""What the one-versus-rest calibrations look at: the log-odds of each class."""

import torch
from torch import Tensor

__all__ = ["log_odds", "normalised"]


def log_odds(logits: Tensor) -> Tensor:
    """`(n, c, ...)` logits to log p_k / (1 - p_k), `(c, n · pixels)` in float64.

    It orders samples as the probability does, but tells answers apart whose probabilities round to 1. Rounded to 1e-12
    (the gradient passes), so that answers that are equal but for the last digit are equal.
    """
    rows = logits.movedim(1, -1).flatten(0, -2).double()
    # Of the highest class p may round to 1: its odds against the others are taken from the logits.
    highest, top = rows.max(dim=1, keepdim=True)
    others = rows.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_p = rows.log_softmax(dim=1)
    lower = log_p - (-log_p.exp().clamp_max(0.5)).log1p()
    odds = lower.scatter(1, top, highest - others).T.contiguous()
    return odds + (odds.round(decimals=12) - odds).detach()


def normalised(probs: Tensor, like: Tensor) -> Tensor:
    """Positive `(c, n · pixels)` to log-probabilities in shape and dtype of the logits `like`."""
    logs = (probs / probs.sum(dim=0)).log().T
    return logs.reshape(like.movedim(1, -1).shape).movedim(-1, 1).to(like.dtype)
