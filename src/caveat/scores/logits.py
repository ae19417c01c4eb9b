"""Scores that need nothing but the logits of one forward pass.

All take `(n, c)` or, for dense prediction, `(n, c, h, w)`; all return one number per answer, higher = less
trustworthy. They cost next to nothing. Everything is computed from the logits, not from rounded probabilities: with
`others` = sum of exp(logit - max) over all but the largest, 1 - max p = others / (1 + others) keeps its full relative
precision where a float32 softmax would round to 0 and tie.
"""

import torch
from torch import Tensor

from caveat.errors import OptionError
from caveat.precision import wide
from caveat.types import LogitsMap, ScoreMap

__all__ = ["doctor", "energy", "entropy", "gen", "margin", "max_logit", "msp"]


def _parts(logits: LogitsMap) -> tuple[Tensor, Tensor, Tensor]:
    """Logits minus their largest, exp of that with the largest entry set to 0, and the sum of the latter."""
    logits = wide(logits)
    top, where = logits.max(dim=1, keepdim=True)
    shifted = logits - top
    rest = shifted.exp().scatter(1, where, 0.0)
    return shifted, rest, rest.sum(dim=1)


def msp(logits: LogitsMap) -> ScoreMap:
    """One minus the maximum softmax probability: the baseline.

    Always worth printing: it is what people use as confidence. Formula: 1 - max_k p_k, in [0, 1 - 1/c].

    Source: Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, ICLR 2017
    (arXiv 1610.02136).

    >>> msp(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
    tensor([5.0000e-01, 1.2339e-04])
    """
    _, _, others = _parts(logits)
    return others / (1 + others)


def max_logit(logits: LogitsMap) -> ScoreMap:
    """Minus the largest logit.

    Often better than `msp` when there are many classes: the size of the logits is kept. Formula: -max_k l_k, in
    (-inf, inf); it changes when a constant is added to all logits.

    Source: Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022
    (arXiv 1911.11132).

    >>> max_logit(torch.tensor([[1.0, 3.0]]))
    tensor([-3.])
    """
    return -wide(logits).max(dim=1).values


def entropy(logits: LogitsMap) -> ScoreMap:
    """Entropy of the softmax distribution, in nats.

    Looks at the whole distribution where `msp` looks at its peak. Formula: -sum_k p_k log p_k, in [0, log c].

    Source: Shannon 1948; as a network's uncertainty: Oberdiek et al., ANNPR 2018 (arXiv 1805.08440), eq. 1.

    >>> entropy(torch.zeros(1, 4))
    tensor([1.3863])
    """
    shifted, rest, others = _parts(logits)
    # -inf logits have probability 0 and add nothing: 0 * inf must not become NaN
    spread = (rest * shifted.clamp_min(torch.finfo(shifted.dtype).min)).sum(dim=1)
    return others.log1p() - spread / (1 + others)


def margin(logits: LogitsMap) -> ScoreMap:
    """One minus the difference between the two largest probabilities.

    Small margins are where a second class nearly won. Formula: 1 - (p_1 - p_2), in [0, 1].

    Source: Scheffer et al., Active Hidden Markov Models for Information Extraction, IDA 2001.

    >>> margin(torch.tensor([[5.0, 5.0, -100.0]]))
    tensor([1.])
    """
    _, rest, others = _parts(logits)
    return (others + rest.max(dim=1).values) / (1 + others)


def doctor(logits: LogitsMap) -> ScoreMap:
    """Odds that a second draw from the softmax would differ from the first (Doctor; a function of Gini's impurity).

    An estimate of the odds of an error from the whole distribution. Formula: (1 - g) / g with g = sum_k p_k^2, in
    [0, c - 1]; it ranks as Gini's impurity 1 - g.

    Source: Granese et al., DOCTOR: A Simple Method for Detecting Misclassification Errors, NeurIPS 2021
    (arXiv 2106.02395).

    >>> doctor(torch.zeros(1, 4))
    tensor([3.])
    """
    _, rest, others = _parts(logits)
    squares = rest.square().sum(dim=1)
    # with the largest as 1: (total^2 - sum of squares) / sum of squares, where total = 1 + others
    return (2 * others + others.square() - squares) / (1 + squares)


def energy(logits: LogitsMap, *, temperature: float = 1.0) -> ScoreMap:
    """Free energy of the logits.

    Follows the density of the inputs more closely than `msp` where logits are unbounded. Formula:
    -T logsumexp_k(l_k / T), in (-inf, inf); it changes when a constant is added to all logits.

    Raises
    ------
    OptionError
        If `temperature` is not positive.

    Source: Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020 (arXiv 2010.03759).

    >>> energy(torch.zeros(1, 4))
    tensor([-1.3863])
    """
    if not temperature > 0:
        raise OptionError(f"temperature: expected a positive number, got {temperature}")
    return -temperature * torch.logsumexp(wide(logits) / temperature, dim=1)


def gen(logits: LogitsMap, *, gamma: float = 0.1, top: int = 100) -> ScoreMap:
    """Generalised entropy of the `top` largest probabilities.

    A small `gamma` weighs small probabilities up: among the best scores that need no fitting. Formula:
    sum_k p_k^gamma (1 - p_k)^gamma over the `top` largest, in [0, min(c, top)].

    Raises
    ------
    OptionError
        If `gamma` is not in (0, 1) or `top` is not positive.

    Source: Liu et al., GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection, CVPR 2023.

    >>> gen(torch.zeros(1, 4), gamma=0.5)
    tensor([1.7321])
    """
    if not 0 < gamma < 1:
        raise OptionError(f"gamma: expected a number in (0, 1), got {gamma}")
    if top < 1:
        raise OptionError(f"top: expected a positive number of classes, got {top}")
    _, rest, others = _parts(logits)
    total = 1 + others
    probs = rest / total.unsqueeze(1)
    probs = probs.topk(min(top, logits.shape[1]) - 1, dim=1).values  # the largest is counted apart: its entry is 0
    # p (1 - p) of the largest without rounding 1 - p; kept off 0, where the power has no gradient
    products = torch.cat([(others / total / total).unsqueeze(1), probs * (1 - probs)], dim=1)
    return products.clamp_min(torch.finfo(products.dtype).tiny).pow(gamma).sum(dim=1)
