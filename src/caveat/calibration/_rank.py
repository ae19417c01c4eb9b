"""The order statistic on which every conformal promise rests."""

import math
from fractions import Fraction

from torch import Tensor

from caveat.errors import OptionError

__all__ = ["conformal_quantile", "exact_share", "keeping_threshold"]


def conformal_quantile(scores: Tensor, error: float) -> Tensor:
    """The ⌈(n + 1)(1 - error)⌉-th smallest score, infinite if there are fewer.

    Raises
    ------
    OptionError
        If `error` is not in (0, 1).
    """
    return _ordered(scores, 1 - exact_share("error", error))


def keeping_threshold(scores: Tensor, keep: float) -> float:
    """The least threshold at or below which a fresh exchangeable score lies with probability at least `keep`.

    Of n scores it is the ⌈(n + 1) keep⌉-th smallest; infinite if n is too small.

    Raises
    ------
    OptionError
        If `keep` is not in (0, 1).

    Source: Papadopoulos et al., Inductive Confidence Machines for Regression, ECML 2002.

    >>> import torch
    >>> scores = torch.arange(1.0, 20)
    >>> keeping_threshold(scores, 0.9), keeping_threshold(scores, 0.99)
    (18.0, inf)
    """
    return float(_ordered(scores, exact_share("keep", keep)))


def exact_share(option: str, share: float) -> Fraction:
    """The decimal number that was written, exactly: (n + 1) share in floats can end just above the whole it is."""
    if not 0 < share < 1:
        raise OptionError(f"{option}: expected a share in (0, 1), got {share}")
    return Fraction(str(float(share)))


def _ordered(scores: Tensor, share: Fraction) -> Tensor:
    k = math.ceil((len(scores) + 1) * share)
    return scores.new_tensor(math.inf) if k > len(scores) else scores.kthvalue(k).values
