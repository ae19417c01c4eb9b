"""Regret of a learner that knew the label, against the one that did not (pNML)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from caveat.scores.moments import CHUNK, check
from caveat.types import Features, Head, Labels, Score

__all__ = ["Regret", "fit"]


@dataclass(frozen=True)
class Regret:
    """A fitted score, in [0, 1]."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    whiten: Float[Tensor, "r d"]
    """A^T A = (X^T X)^+ of the in-distribution features, each of length 1."""

    def __call__(self, features: Features) -> Score:
        """One r x d product a sample."""
        unit = normalize(features, dim=1)
        support = (unit @ self.whiten.T).square().sum(dim=1, keepdim=True)
        log_probs = (unit @ self.weight.T + self.bias).log_softmax(dim=1)
        others = -torch.expm1(log_probs)  # 1 - p
        # p / (p + (1 - p) p^g) - p with p^(1-g) for p^-g, which would overflow; a sum of such small numbers keeps its
        # digits, where the logarithm of a sum near 1 would not
        lifted = (log_probs / (1 + support)).exp()
        gained = -torch.expm1(log_probs * support / (1 + support))
        return (others * lifted * gained / (lifted + others)).sum(dim=1).log1p() / math.log(self.weight.shape[0])


def fit(features: Features, labels: Labels, head: Head) -> Regret:
    """Fit the second moment of in-distribution features.

    Sees directions that training never used, and unsure answers. Formula: log sum_k p_k / (p_k + (1 - p_k) p_k^g) /
    log c, g = s/(1+s), s = x^T (X^T X)^+ x, features of length 1, p the softmax of the head on such features.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Bibas et al., Single Layer Predictive Normalized Maximum Likelihood for Out-of-Distribution Detection,
    NeurIPS 2021 (arXiv 2110.09246).
    """
    check(features, labels)
    size = features.shape[1]
    second = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), CHUNK):
        unit = normalize(features[start : start + CHUNK].double(), dim=1)
        second.addmm_(unit.T, unit)
    values, vectors = torch.linalg.eigh(second)
    # what is rounding, not data, is left out, as a pseudo-inverse of X does (eigenvalues are squares of its singular
    # values); networks compute in single precision, so that features in double precision hold that rounding too
    kept = values > values[-1] * (size * torch.finfo(torch.float32).eps) ** 2
    whiten = (vectors[:, kept] / values[kept].sqrt()).T
    return Regret(*head, whiten.to(features.dtype).contiguous())
