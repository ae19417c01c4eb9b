"""Which inputs of a batch are out of distribution, with a bounded share of false ones among them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat.errors import OptionError

__all__ = ["discoveries"]


def discoveries(p_values: Float[Tensor, " n"], level: float = 0.1) -> Bool[Tensor, " n"]:
    """The inputs that are told to be OOD, of which a share `level` at most is in-distribution, in expectation.

    A guard refuses every input by itself: of a million in-distribution ones `keep=0.95` refuses 50,000, and if nothing
    else came all of these are false. This looks at a whole batch and bounds the false discovery rate (FDR): the
    expected share of in-distribution inputs among those that are told, which is 0 where none is told. To find any, the
    reference must be large: with k true ones among n, p-values of about level · k / n are needed, and none is below
    1/(reference + 1).

    The procedure of Benjamini and Hochberg. It holds for conformal p-values, `verdict.p_value` of every guard, although
    they share one reference: they are positively dependent (PRDS). The in-distribution inputs must be exchangeable with
    the reference and independent of the others; the expectation is over the reference too. NaN, of inputs that could
    not be looked at, is never told and does not count.

    Formula: all p_i ≤ p_(k), where k is the largest with p_(k) ≤ level · k / n.

    Raises
    ------
    OptionError
        If `level` is not in (0, 1), or a p-value not in [0, 1].

    Source: Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, JRSS B 57 (1995); S. Bates et al., Testing
    for outliers with conformal p-values, Annals of Statistics 51 (2023), arXiv 2104.08279, theorem 2 (why it holds).

    >>> discoveries(torch.tensor([0.01, 0.9, 0.04, 0.03, torch.nan]), level=0.05).tolist()  # limits 1/80, 2/80, ...
    [True, False, False, False, False]
    >>> discoveries(torch.tensor([0.01, 0.9, 0.04, 0.03]), level=0.06).tolist()  # 0.04 is below 3/4 of 0.06: all three
    [True, False, True, True]
    """
    if not 0 < level < 1:
        raise OptionError(f"level: expected a share in (0, 1), got {level:g}")
    known = ~p_values.isnan()
    ordered = p_values[known].double().sort().values
    if len(ordered) and (ordered[0] < 0 or ordered[-1] > 1):
        raise OptionError("p_values: expected numbers in [0, 1] (a verdict's p_value), got others")
    limits = level * torch.arange(1, len(ordered) + 1, dtype=torch.float64, device=ordered.device) / len(ordered)
    under = (ordered <= limits).nonzero()
    return known & (p_values.double() <= ordered[under[-1, 0]]) if len(under) else torch.zeros_like(known)
