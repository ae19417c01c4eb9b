"""Scores of networks with independent sigmoids: what the logits of all labels say together.

Each is `score(logits)` of `(s, n, c)`, the logits of s networks (of one, s = 1), whose probabilities are averaged.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from caveat.types import Score

__all__ = ["binary_entropy", "joint_energy", "label_disagreement", "max_label", "mean_logits"]

SeveralLogits = Float[Tensor, "s n c"]


def mean_logits(logits: SeveralLogits) -> Float[Tensor, "n c"]:
    """The logits, in float64, of the networks' mean probabilities: of one network its own.

    Formula: log mean_s σ(z) - log mean_s σ(-z).
    """
    wide = logits.double()
    if len(wide) == 1:
        return wide[0]
    return functional.logsigmoid(wide).logsumexp(dim=0) - functional.logsigmoid(-wide).logsumexp(dim=0)


def joint_energy(logits: SeveralLogits) -> Score:
    """Joint energy: how little all labels together speak for the input. An input without labels looks OOD to it.

    Formula: -Σ_k log(1 + exp z_k), at most 0.

    Source: H. Wang, W. Liu, A. Bocchieri, Y. Li, Can multi-label classification networks know what they don't know?,
    NeurIPS 2021 (arXiv 2109.14162), equation 6, negated.

    Examples
    --------
    >>> joint_energy(torch.zeros(1, 1, 2))  # -2 log 2
    tensor([-1.3863], dtype=torch.float64)
    """
    return -functional.softplus(mean_logits(logits)).sum(dim=-1)


def max_label(logits: SeveralLogits) -> Score:
    """Maximum logit, negated: the label that speaks most for the input; it ranks as the largest probability does.

    Formula: -max_k z_k.

    Source: D. Hendrycks et al., Scaling out-of-distribution detection for real-world settings, ICML 2022 (arXiv
    1911.11132), section 3.2 (multi-label: maximum logit).
    """
    return -mean_logits(logits).amax(dim=-1)


def binary_entropy(logits: SeveralLogits) -> Score:
    """Mean binary entropy of the labels, in nats: how undecided the network is, label by label, in [0, log 2].

    Formula: mean_k [-p_k log p_k - (1 - p_k) log(1 - p_k)].

    Source: C. Shannon, A mathematical theory of communication, 1948, section 6; of independent labels it is additive.
    """
    return _entropy(mean_logits(logits)).mean(dim=-1)


def label_disagreement(logits: SeveralLogits) -> Score | None:
    """Epistemic uncertainty: how far the networks disagree on the labels, in nats; None of one network.

    Formula: mean_k [H(mean_s p_sk) - mean_s H(p_sk)], in [0, log 2].

    Source: N. Houlsby et al., Bayesian active learning for classification and preference learning, 2011 (arXiv
    1112.5745), equation 2, of two classes.
    """
    if len(logits) == 1:
        return None
    between = _entropy(mean_logits(logits)) - _entropy(logits.double()).mean(dim=0)
    return between.clamp_min(0).mean(dim=-1)


def _entropy(logits: Tensor) -> Tensor:
    """Of σ(z), exactly also where it is 0 or 1 to the last bit: log(1 + e^-|z|) + |z| σ(-|z|)."""
    size = logits.abs()
    return functional.softplus(-size) + size * torch.sigmoid(-size)
