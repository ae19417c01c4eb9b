"""Scores from an ensemble or from posterior samples: how uncertain each is, and how far they disagree.

All take logits `(s, n, c)` of s draws or, for dense prediction, `(s, n, c, h, w)`; all return one number per answer,
higher = less trustworthy. The order of the draws does not count. Predictive entropy (total) = expected entropy
(aleatoric: noise that more data would not remove) + mutual information (epistemic: what more data would).
"""

import torch
from torch import Tensor

from caveat.mixture import log_mean, log_probs
from caveat.precision import wide
from caveat.scores import logits as single
from caveat.types import Draws, ScoreMap

__all__ = [
    "draw_variance",
    "expected_entropy",
    "mean_msp",
    "mutual_information",
    "pairwise_kl",
    "predictive_entropy",
    "variation_ratio",
]


def predictive_entropy(draws: Draws) -> ScoreMap:
    """Entropy of the mean distribution, in nats: the total uncertainty.

    Formula: H[mean_s p_s] = -sum_k pbar_k log pbar_k, in [0, log c].

    Source: Depeweg et al., Decomposition of Uncertainty in Bayesian Deep Learning, ICML 2018 (arXiv 1710.07283);
    Okatani, Deep Learning, 2nd edition, chapter 8.

    >>> predictive_entropy(torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]]))
    tensor([0.6931])
    """
    return single.entropy(log_mean(draws))


def expected_entropy(draws: Draws) -> ScoreMap:
    """Mean entropy of the draws, in nats: the aleatoric part of the uncertainty.

    Formula: mean_s H[p_s], in [0, log c]; at most the predictive entropy.

    Source: as `predictive_entropy`.

    >>> expected_entropy(torch.zeros(3, 1, 2))
    tensor([0.6931])
    """
    count, samples = draws.shape[:2]
    return single.entropy(draws.flatten(0, 1)).reshape(count, samples, *draws.shape[3:]).mean(dim=0)


def mutual_information(draws: Draws) -> ScoreMap:
    """Mutual information of answer and network, in nats: the epistemic part of the uncertainty (BALD).

    Formula: mean_s KL(p_s || mean p), in [0, min(log c, log s)]; 0 to the last bit where all draws agree.

    Source: as `predictive_entropy`; Houlsby et al., Bayesian Active Learning for Classification and Preference
    Learning, 2011 (arXiv 1112.5745).

    >>> mutual_information(torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]]))
    tensor([0.6931])
    """
    logs = log_probs(draws)
    return (logs.exp() * (logs - log_mean(draws))).sum(dim=2).mean(dim=0).clamp_min(0)


def variation_ratio(draws: Draws) -> ScoreMap:
    """Share of the draws that do not vote for the most voted class.

    Formula: 1 - m / s with m the votes of the modal class, in [0, 1 - 1/s]. (A textbook slide calls m the number of
    the others, which gives the rate of agreement.)

    Source: Freeman, Elementary Applied Statistics, 1965; for networks: Gal, Uncertainty in Deep Learning, 2016.

    >>> variation_ratio(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]]))
    tensor([0.2500])
    """
    votes = torch.zeros_like(wide(draws[0]))
    for answers in draws.argmax(dim=2):
        votes.scatter_add_(1, answers.unsqueeze(1), votes.new_ones(1).expand(answers.unsqueeze(1).shape))
    return 1 - votes.amax(dim=1) / len(draws)


def draw_variance(draws: Draws) -> ScoreMap:
    """Variance of the probabilities from draw to draw, summed over the classes.

    Formula: sum_k var_s p_sk (divided by s), in [0, 1).

    Source: Lakshminarayanan et al., Deep Ensembles, NeurIPS 2017 (arXiv 1612.01474), disagreement.

    >>> draw_variance(torch.tensor([[[99.0, 0.0]], [[0.0, 99.0]]]))
    tensor([0.5000])
    """
    probs = wide(draws).softmax(dim=2)
    return (probs - probs.mean(dim=0)).square().mean(dim=0).sum(dim=1)


def mean_msp(draws: Draws) -> ScoreMap:
    """One minus the largest mean probability: what is called the confidence of an ensemble.

    Formula: 1 - max_k mean_s p_sk, in [0, 1 - 1/c]. The baseline among the draws' scores.

    Source: Lakshminarayanan et al., Deep Ensembles, NeurIPS 2017 (arXiv 1612.01474).

    >>> mean_msp(torch.tensor([[[9.0, -9.0]], [[-9.0, 9.0]]]))
    tensor([0.5000])
    """
    return single.msp(log_mean(draws))


def pairwise_kl(draws: Draws) -> ScoreMap:
    """Mean Kullback-Leibler divergence over all pairs of different draws, in nats.

    Weighs classes that one draw all but excludes more than `mutual_information` does. Formula:
    sum_{i != j} KL(p_i || p_j) / (s (s - 1)), in [0, inf); 0 for a single draw.

    Source: Malinin and Gales, Uncertainty Estimation in Autoregressive Structured Prediction, ICLR 2021
    (arXiv 2002.07650): expected pairwise KL divergence.

    >>> pairwise_kl(torch.zeros(3, 1, 2))
    tensor([0.])
    """
    count = len(draws)
    logs = log_probs(draws)
    probs = logs.exp()
    # relative to one draw, so that equal draws give 0 exactly
    logs = (logs - logs[0]).clamp_min(-(torch.finfo(logs.dtype).max ** 0.5))
    own: Tensor = count * (probs * logs).sum(dim=(0, 2))
    cross = (probs.sum(dim=0) * logs.sum(dim=0)).sum(dim=1)
    return ((own - cross) / max(1, count * (count - 1))).clamp_min(0)
