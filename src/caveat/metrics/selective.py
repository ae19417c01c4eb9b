"""What is gained by abstaining: errors among the predictions that are accepted when the least trusted are rejected.

Every metric is a function of a `Tally` of the correct (negative) and the wrong (positive) answers. Samples of equal
score are taken in random order and the expectation is reported, so the order of the data never matters
(TorchUncertainty 0.13 gives one set of predictions an AURC of .188, .214 or .166, by their order).
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from caveat.metrics import _check
from caveat.metrics._curve import simplify
from caveat.metrics.tally import Tally, compress

__all__ = [
    "accuracy_rejection_curve",
    "augrc",
    "aurc",
    "coverage_at_risk",
    "e_aurc",
    "risk_at_coverage",
    "risk_coverage_curve",
]

_SLACK = 1e-12
"""Relative: so that 0.7 of 10 samples are 7 of them, whatever the rounding."""


def aurc(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """Area under the risk-coverage curve: the mean, over k = 1..n, of the error rate among the k most trusted.

    Formula: (1/n) Σ_k (wrong among the first k) / k, in expectation over the order of ties. In [0, 1], lower is better;
    a useless score has the error rate itself. It mixes how right the network is with how well it knows (see `e_aurc`).
    TorchUncertainty takes the trapezoid rule over k = 1..n instead; the two differ by the order of 1/n.

    Source: Y. Geifman, G. Uziel, R. El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers, ICLR
    2019.

    Examples
    --------
    >>> from caveat.metrics.tally import tally
    >>> area = aurc(tally(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([False, True, False])))
    >>> round(area.item(), 6)  # (0 + 1/2 + 1/3) / 3
    0.277778
    """
    total, before, wrong_before = _sizes(counted)
    slope = counted.positive / total.clamp(min=1)
    # Within a tie of t samples, e of them wrong, the j-th prefix is expected to hold wrong_before + e j/t wrong ones.
    area = counted.positive + (wrong_before - before * slope) * _harmonic_rise(before, total)
    return area.sum(-1) / total.sum(-1)


def e_aurc(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """AURC above that of the ideal order (all correct answers first): 0 is perfect, whatever the error rate.

    Formula: AURC − that of the ideal, which is computed exactly, (1/n)(w − (n − w)(H_n − H_{n−w})) for w wrong of n,
    not by its limit r + (1 − r) log(1 − r).

    Source: Geifman et al., ICLR 2019, section 3 (E-AURC).
    """
    wrong, right = counted.positive.sum(-1), counted.negative.sum(-1)
    ideal = (wrong - right * _harmonic_rise(right, wrong)) / (wrong + right)
    return aurc(counted) - ideal


def augrc(counted: Tally) -> Float64[Tensor, "*replicas"]:
    """Area under the generalized risk-coverage curve: mean share of *silent* errors (accepted and wrong, of all).

    Formula: ∫ (wrong accepted)/n d coverage = (1 − AUROC)·a(1 − a) + ½ (1 − a)² with accuracy a. In [0, 0.5], lower is
    better. Unlike AURC, an error counts alike wherever it stands.

    Source: J. Traub et al., Overcoming common flaws in the evaluation of selective classification systems, NeurIPS
    2024.
    """
    total, _, wrong_before = _sizes(counted)
    return (total * (wrong_before + counted.positive / 2)).sum(-1) / total.sum(-1) ** 2


def risk_at_coverage(counted: Tally, coverage: float = 0.8) -> Float64[Tensor, "*replicas"]:
    """Error rate among the `coverage` most trusted answers (rounded up to whole samples; ties in expectation).

    Formula: (wrong among the first ⌈coverage · n⌉) / ⌈coverage · n⌉, in [0, 1], lower is better.

    Raises
    ------
    OptionError
        If `coverage` is not in ]0, 1].

    Source: Y. Geifman, R. El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
    """
    _check.share("coverage", coverage)
    total, before, wrong_before = _sizes(counted)
    size = (coverage * total.sum(-1, keepdim=True) * (1 - _SLACK)).ceil()
    cell = (total.cumsum(-1) < size).sum(-1, keepdim=True)
    inside = (size - before.gather(-1, cell)) / total.gather(-1, cell)
    wrong = wrong_before.gather(-1, cell) + counted.positive.gather(-1, cell) * inside
    return (wrong / size).squeeze(-1)


def coverage_at_risk(counted: Tally, risk: float = 0.05) -> Float64[Tensor, "*replicas"]:
    """The largest share of answers that one threshold accepts with an error rate of at most `risk`; 0 if none does.

    A threshold can't split a tie, so only whole ties are counted. Formula: max{k/n: (wrong among the first k) <=
    risk · k}, in [0, 1], higher is better.

    Raises
    ------
    OptionError
        If `risk` is not in ]0, 1].

    Source: Y. Geifman, R. El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017 (there with a
    guarantee).
    """
    _check.share("risk", risk)
    total, wrong = (counted.negative + counted.positive).cumsum(-1), counted.positive.cumsum(-1)
    held = wrong <= risk * total * (1 + _SLACK)
    return (total / total[..., -1:] * held).amax(-1)


def risk_coverage_curve(counted: Tally, *, points: int = 200) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """The risk-coverage curve: x coverage, from 0 to 1; y error rate among the accepted.

    One vertex per distinct score, at most `points` of them, chosen so that the polyline strays least.

    Raises
    ------
    DataError
        If the tally holds replicas.
    OptionError
        If `points` is less than 2.
    """
    small = compress(counted)
    total = (small.negative + small.positive).cumsum(-1)
    risk = small.positive.cumsum(-1) / total
    coverage = torch.cat((total.new_zeros(1), total / total[-1]))
    return simplify(coverage, torch.cat((risk[:1], risk)), points=points)


def accuracy_rejection_curve(
    counted: Tally, *, points: int = 200
) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """The accuracy-rejection curve: x share rejected, y accuracy of the rest. See `risk_coverage_curve`."""
    coverage, risk = risk_coverage_curve(counted, points=points)
    return (1 - coverage).flip(-1), (1 - risk).flip(-1)


def _sizes(counted: Tally) -> tuple[Tensor, Tensor, Tensor]:
    """Per cell: how many samples it holds, how many come before it, how many of those are wrong."""
    total = counted.negative + counted.positive
    return total, total.cumsum(-1) - total, counted.positive.cumsum(-1) - counted.positive


def _harmonic_rise(start: Tensor, count: Tensor) -> Tensor:
    """H_{start+count} − H_start, to float64 precision also where it is a tiny difference of large sums."""
    low, high = start + 1, start + count + 1
    # ψ(z) ~ log z − 1/(2z) − 1/(12z²) + 1/(120z⁴), subtracted term by term.
    a, b = 1 / low, 1 / high
    gap = count * a * b  # a − b without cancellation
    squares = gap * (a + b)
    rise = torch.log1p(count * a) + gap / 2 + squares / 12 - squares * (a**2 + b**2) / 120
    few = low < 128  # where the expansion is not good enough, and the plain difference is
    rise[few] = torch.digamma(high[few]) - torch.digamma(low[few])
    return rise
