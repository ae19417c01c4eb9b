"""Split conformal prediction: sets of classes that hold the truth as often as was asked for."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caveat.calibration import _check
from caveat.calibration._rank import conformal_quantile
from caveat.errors import DataError, OptionError
from caveat.types import Labels, Logits

__all__ = [
    "Adaptive",
    "LeastAmbiguous",
    "aps",
    "class_conditional",
    "coverage",
    "coverage_by_class",
    "coverage_by_size",
    "lac",
    "raps",
    "sizes",
]

Sets = Bool[Tensor, "n c"]


@dataclass(frozen=True)
class LeastAmbiguous:
    """All classes whose probability is high enough."""

    quantile: Float[Tensor, "..."]
    """Of 1 - p of the true class, one for all classes or one for each; infinite where the samples were too few: the
    class is in every set."""

    def __call__(self, logits: Logits) -> Sets:
        """True for the classes of each sample's set, which may be empty: nothing fits."""
        return 1 - logits.double().softmax(dim=1) <= self.quantile


@dataclass(frozen=True)
class Adaptive:
    """The most probable classes until they are probable enough together; late ranks may cost more."""

    quantile: Float[Tensor, ""]
    """Of the score of the true class; infinite where the samples were too few: all classes."""
    penalty: float
    rank: int
    randomised: bool

    def __call__(self, logits: Logits, *, generator: torch.Generator | None = None) -> Sets:
        """True for the classes of each sample's set.

        Never empty unless randomised, and then `generator` is needed (only then is it used).

        Raises
        ------
        OptionError
            If the sets are randomised and there is no generator.
        """
        share = _share(logits, self.randomised, generator)
        return _adaptive(logits, share, self.penalty, self.rank) <= self.quantile


def lac(logits: Logits, labels: Labels, *, error: float = 0.1) -> LeastAmbiguous:
    """Least ambiguous sets: classes with 1 - p_k ≤ q, with q so that the truth is missed in a share `error` at most.

    The smallest sets on average of all that cover as often, if the probabilities are right. They cover confident and
    uncertain inputs unequally, and are empty where no class is likely. On samples that the network was not trained on
    and that are exchangeable with those to come, whatever the network,

        1 - error ≤ P(truth in set) < 1 - error + 1 / (n + 1)    (the upper bound if no two scores are equal).

    The probability is over samples *and* inputs, and over all classes: not for each class or kind of input. Formula:
    {k: 1 - p_k ≤ q}, with q the ⌈(n + 1)(1 - error)⌉-th smallest of the n scores 1 - p_label; if there are not so many,
    all classes.

    Parameters
    ----------
    logits: of any floating dtype; calibrated ones make better sets, and cover as often.
    labels: 0 to c - 1.
    error: share of inputs, in (0, 1), whose set may miss the truth.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or there is no sample.
    OptionError
        If `error` is not in (0, 1).

    Source: M. Sadinle, J. Lei and L. Wasserman, Least ambiguous set-valued classifiers with bounded error levels, JASA
    2019, theorem 1. Finite samples: V. Vovk et al., Algorithmic learning in a random world, 2005, section 4.1.

    Examples
    --------
    >>> p = torch.tensor([[0.6, 0.3, 0.1]])
    >>> g = lac(p.log().repeat(9, 1), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2]), error=0.2)  # q: 8th of 9, 1 - 0.3
    >>> g(p.log())
    tensor([[ True,  True, False]])
    """
    rows, kept = _check.labelled_rows(logits, labels, void=None)
    scores = 1 - rows.double().softmax(dim=1).gather(1, kept[:, None]).squeeze(1)
    return LeastAmbiguous(conformal_quantile(scores, error))


def class_conditional(logits: Logits, labels: Labels, *, error: float = 0.1) -> LeastAmbiguous:
    """Class-conditional (Mondrian) sets: as `lac`, with a threshold for each class, so that none of them is left out.

    `lac` keeps its promise on average; of the worst of many classes it may cover a third. Here, for every class k,

        1 - error ≤ P(truth in set | class k),

    at the price of larger sets: a class with fewer than ⌈1 / error⌉ - 1 samples is in every set. Formula:
    {k: 1 - p_k ≤ q_k}, q_k the ⌈(n_k + 1)(1 - error)⌉-th smallest of 1 - p_k of the n_k samples of the class.

    Raises
    ------
    DataError, OptionError
        As `lac`.

    Source: V. Vovk, Conditional validity of inductive conformal predictors, ACML 2012, section 3 (label conditional).

    Examples
    --------
    >>> p = torch.tensor([[0.6, 0.3, 0.1]])
    >>> g = class_conditional(p.log().repeat(9, 1), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1]), error=0.2)
    >>> g(p.log())  # class 1 has 3 samples, 4 are needed; of class 2 there is none
    tensor([[True, True, True]])
    """
    rows, kept = _check.labelled_rows(logits, labels, void=None)
    probs = rows.double().softmax(dim=1)
    quantiles = [conformal_quantile(1 - probs[kept == k, k], error) for k in range(probs.shape[1])]
    return LeastAmbiguous(torch.stack(quantiles))


def aps(
    logits: Logits,
    labels: Labels,
    *,
    error: float = 0.1,
    randomised: bool = False,
    generator: torch.Generator | None = None,
) -> Adaptive:
    """Adaptive sets: the most probable classes, as many as it takes; small where the network is confident, else large.

    They cover confident and uncertain inputs more equally than `lac`, with larger sets on average. Formula: the score
    of class k is

        s_k = Σ_{j before k} p_j  (+ U · p_k, U uniform in [0, 1], one for each sample, if randomised)

    over the classes of higher probability, and of equal ones those of a smaller number: ties are ranked, so that the
    sets grow class by class. The set is {k: s_k ≤ q}, q and its promise as in `lac`. Without randomness the set holds
    the class at which the sum crosses q, and so at least one; many scores are then 0, and a network that is right more
    often than asked for covers more. Randomised sets cover exactly, and can be empty.

    Others count p_k itself into the scores of the samples but not into the sets: those cover too much.

    Parameters
    ----------
    logits: of any floating dtype.
    labels: 0 to c - 1.
    error: share of inputs, in (0, 1), whose set may miss the truth.
    generator: needed if `randomised`, here and when the sets are made; used only then.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or there is no sample.
    OptionError
        If `error` is not in (0, 1), or there is no generator for what is randomised.

    Source: Y. Romano, M. Sesia and E. Candès, Classification with valid and adaptive coverage, NeurIPS 2020, equations
    5 to 7.

    Examples
    --------
    >>> p = torch.tensor([[0.6, 0.3, 0.1]])
    >>> g = aps(p.log().repeat(9, 1), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2]), error=0.2)  # q: 8th of 9, 0.6
    >>> g(p.log())
    tensor([[ True,  True, False]])
    """
    return raps(logits, labels, error=error, penalty=0.0, rank=1, randomised=randomised, generator=generator)


def raps(
    logits: Logits,
    labels: Labels,
    *,
    error: float = 0.1,
    penalty: float = 0.01,
    rank: int = 5,
    randomised: bool = False,
    generator: torch.Generator | None = None,
) -> Adaptive:
    """Regularised adaptive sets: as `aps`, but each class after the first few adds a penalty to the score.

    For many classes, whose long tail of tiny, wrongly ordered probabilities makes adaptive sets huge. Formula:
    the score of the class of the r-th highest probability is that of `aps` plus

        penalty · max(0, r - rank).

    Penalty 0 is `aps`; the larger it is, the more the sets are of one size. The promise is that of `lac` for any
    penalty and rank that were not chosen by looking at these samples.

    Parameters
    ----------
    logits: of any floating dtype.
    labels: 0 to c - 1.
    error: share of inputs, in (0, 1), whose set may miss the truth.
    penalty: λ of the paper, at least 0.
    rank: k_reg of the paper: ranks up to this one cost nothing; at least 0.
    generator: needed if `randomised`, here and when the sets are made; used only then.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or there is no sample.
    OptionError
        If `error` is not in (0, 1), `penalty` or `rank` is negative, or there is no generator for what is randomised.

    Source: A. Angelopoulos et al., Uncertainty sets for image classifiers using conformal prediction, ICLR 2021,
    equation 4.

    Examples
    --------
    >>> p = torch.tensor([[0.5, 0.3, 0.2]])
    >>> g = raps(p.log().repeat(4, 1), torch.tensor([0, 1, 2, 0]), error=0.2, penalty=0.1, rank=1)
    >>> round(g.quantile.item(), 6)  # that of class 2, the 4th of 4: 0.5 + 0.3 + 2 · 0.1
    1.0
    """
    if not (0 <= penalty < math.inf):
        raise OptionError(f"penalty: expected a number of at least 0, got {penalty}")
    if rank < 0:
        raise OptionError(f"rank: expected at least 0, got {rank}")
    rows, kept = _check.labelled_rows(logits, labels, void=None)
    share = _share(rows, randomised, generator)
    scores = _adaptive(rows, share, penalty, rank).gather(1, kept[:, None]).squeeze(1)
    return Adaptive(conformal_quantile(scores, error), penalty, rank, randomised)


def sizes(sets: Sets) -> Int[Tensor, " n"]:
    """Number of classes in each set: 1 is a plain answer, more an uncertainty, 0 an input that nothing fits."""
    return sets.sum(dim=1)


def coverage(sets: Sets, labels: Labels) -> Float[Tensor, ""]:
    """Share of the sets that hold the label, in [0, 1], float64; 1 - error or a little more if the promise is kept.

    Raises
    ------
    DataError
        If there is no sample, lengths differ, or a label is out of range.

    Examples
    --------
    >>> coverage(torch.tensor([[True, False], [True, True], [False, False]]), torch.tensor([0, 1, 1]))
    tensor(0.6667, dtype=torch.float64)
    """
    return _hits(sets, labels).mean()


def coverage_by_class(sets: Sets, labels: Labels) -> Float[Tensor, " c"]:
    """Coverage among the samples of each class; NaN for a class without any. Only `class_conditional` promises it.

    Raises
    ------
    DataError
        If there is no sample, lengths differ, or a label is out of range.
    """
    return _mean_by(_hits(sets, labels), labels, sets.shape[1])


def coverage_by_size(sets: Sets, labels: Labels) -> Float[Tensor, " k"]:
    """Coverage among the sets of 0, 1 ... c classes; NaN for sizes that do not occur.

    A share that falls far below 1 - error says for which sets the average deceives.

    Raises
    ------
    DataError
        If there is no sample, lengths differ, or a label is out of range.
    """
    return _mean_by(_hits(sets, labels), sizes(sets), sets.shape[1] + 1)


def _adaptive(logits: Tensor, share: Tensor, penalty: float, rank: int) -> Tensor:
    """Score of each class: probability above it, `share` of its own, and the cost of its rank."""
    ordered, order = logits.double().softmax(dim=1).sort(dim=1, descending=True, stable=True)
    above = torch.cat((ordered.new_zeros(len(ordered), 1), ordered.cumsum(dim=1)[:, :-1]), dim=1)
    ranks = torch.arange(1, ordered.shape[1] + 1, device=ordered.device, dtype=ordered.dtype)
    scores = above + share[:, None] * ordered + penalty * (ranks - rank).clamp_min(0)
    return torch.empty_like(scores).scatter(1, order, scores)


def _share(logits: Tensor, randomised: bool, generator: torch.Generator | None) -> Tensor:
    """How much of its own probability a class counts: a uniform number for each sample, or nothing."""
    if not randomised:
        return logits.new_zeros(len(logits), dtype=torch.float64)
    if generator is None:
        raise OptionError("generator: expected a torch.Generator, as the sets are randomised, got None")
    drawn = torch.rand(len(logits), generator=generator, device=generator.device, dtype=torch.float64)
    return drawn.to(logits.device)


def _hits(sets: Tensor, labels: Tensor) -> Tensor:
    if len(sets) == 0 or len(sets) != len(labels):
        raise DataError(
            f"labels: expected one for each of the sets, of which at least one, got {len(labels)} for {len(sets)}"
        )
    if bool(((labels < 0) | (labels >= sets.shape[1])).any()):
        raise DataError(f"labels: expected 0 to {sets.shape[1] - 1}, got {int(labels.min())} to {int(labels.max())}")
    return sets.gather(1, labels[:, None].long()).squeeze(1).double()


def _mean_by(values: Tensor, groups: Tensor, count: int) -> Tensor:
    total = values.new_zeros(count).index_add(0, groups, values)
    return total / groups.bincount(minlength=count)
