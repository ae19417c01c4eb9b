"""KL divergence of the softmax to the nearest typical softmax of a class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import check
from caveat.types import Labels, Logits, Score

__all__ = ["KLMatching", "fit"]


@dataclass(frozen=True)
class KLMatching:
    """A fitted score: divergence in nats, in [0, inf)."""

    log_typical: Float[Tensor, "k c"]
    """Logarithm of the mean softmax of each class that was ever predicted."""

    def __call__(self, logits: Logits) -> Score:
        """k x c products a sample."""
        log_probs = logits.double().log_softmax(dim=1)  # of usual inputs it is the small difference of two large sums
        probs = log_probs.exp()
        negative_entropy = (probs * log_probs.clamp_min(torch.finfo(probs.dtype).min)).sum(dim=1)
        divergence = (negative_entropy - (probs @ self.log_typical.double().T).amax(dim=1)).clamp_min(0)
        return divergence.to(self.log_typical.dtype)


def fit(logits: Logits, labels: Labels) -> KLMatching:
    """Average the softmax over the in-distribution samples that are predicted as each class; labels are not used.

    Finds answers whose whole distribution is unlike any usual one. Costs next to nothing. Formula:
    min_k KL(p || d_k), d_k the mean softmax of in-distribution samples predicted as k.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a logit is NaN or infinite.

    Source: Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022
    (arXiv 1911.11132), section 4.
    """
    check(logits, labels, "logits")
    probs = logits.double().softmax(dim=1)
    predicted, place = logits.argmax(dim=1).unique(return_inverse=True)
    sums = torch.zeros(len(predicted), logits.shape[1], dtype=torch.float64, device=logits.device)
    typical = sums.index_add_(0, place, probs) / torch.bincount(place).unsqueeze(1)
    tiny = torch.finfo(logits.dtype).tiny  # a class that is never probable: its divergence is huge, not infinite
    return KLMatching(typical.clamp_min(tiny).log().to(logits.dtype))
