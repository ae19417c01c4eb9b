"""Free energy with a weight for every class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.moments import check
from caveat.types import Labels, LogitsMap, ScoreMap

__all__ = ["WeightedEnergy", "fit"]


@dataclass(frozen=True)
class WeightedEnergy:
    """A fitted score, in (-inf, inf)."""

    log_weights: Float[Tensor, " c"]

    def __call__(self, logits: LogitsMap) -> ScoreMap:
        """One addition more than `energy`."""
        shape = (1, -1) + (1,) * (logits.ndim - 2)
        return -torch.logsumexp(logits + self.log_weights.view(shape), dim=1)


def fit(logits: Float[Tensor, "n c"], labels: Labels, *, weights: Float[Tensor, " c"] | None = None) -> WeightedEnergy:
    """Weigh the classes by given (learnt) weights, else by how rare they are in in-distribution data.

    `energy` trusts a network's favourite classes too much when training data are unbalanced; dividing by the class
    frequencies takes that back. With balanced classes it ranks as `energy`. Formula: -log sum_k w_k exp(l_k), negative
    weights taken as 0; by default w_k = n / (c n_k), classes that do not occur as if they occurred once.

    Raises
    ------
    OptionError
        If `weights` does not have one entry per class, or none is positive.
    DataError
        If the set is empty, the lengths differ, or a logit is NaN or infinite.

    Source: Du et al., VOS: Learning What You Don't Know by Virtual Outlier Synthesis, ICLR 2022 (arXiv 2202.01197),
    where the weights are learnt.
    """
    check(logits, labels, "logits")
    if weights is None:
        counts = torch.bincount(labels.clamp(0, logits.shape[1] - 1), minlength=logits.shape[1]).clamp_min(1)
        weights = len(labels) / (logits.shape[1] * counts.double())
    if weights.shape != logits.shape[1:] or not (weights > 0).any() or not weights.isfinite().all():
        raise OptionError(
            f"weights: expected {logits.shape[1]} numbers, finite and some positive, got {weights.tolist()}"
        )
    log_weights = weights.double().clamp_min(0).log()  # -inf: such a class counts for nothing
    return WeightedEnergy(log_weights.to(logits.dtype).to(logits.device))
