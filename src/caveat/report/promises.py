"""Whether a rate that is guaranteed on average over calibration splits is refuted by one of them."""

import math
from fractions import Fraction

from caveat.records.record import Conformal

__all__ = ["chance_of_misses", "keeps"]

SIZE = 0.01
"""A guarantee that holds is denied in at most this share of audits."""


def keeps(item: Conformal) -> bool:
    """Whether so many misses may be chance where the guarantee holds; True where the record has no sizes to tell by."""
    misses = round((1 - item.coverage.value) * item.judged_on)
    return chance_of_misses(misses, item.judged_on, calibration=item.fitted_on, error=item.error) > SIZE


def chance_of_misses(misses: int, judged: int, *, calibration: int, error: float) -> float:
    """How probable `misses` or more of `judged` sets are if split conformal prediction is right.

    The guarantee is on average over calibration splits. Given one of n samples, the true rate of misses is drawn from
    Beta(l, n + 1 - l) with l = floor((n + 1) error), so their number from a beta-binomial distribution. Scores that
    tie only make misses rarer.

    Source: Vovk, Conditional Validity of Inductive Conformal Predictors, ACML 2012, proposition 2a.

    >>> round(chance_of_misses(1, 1, calibration=19, error=0.1), 12)
    0.1
    """
    least = math.floor((calibration + 1) * Fraction(str(error)))
    if misses <= judged * error:
        return 1.0
    if not least:  # too few samples for a threshold: every set holds all classes
        return 0.0
    a, b = least, calibration + 1 - least
    total = 0.0
    for k in range(misses, judged + 1):
        term = math.exp(_log_choose(judged, k) + _log_beta(k + a, judged - k + b) - _log_beta(a, b))
        total += term
        if term < 1e-9 * total:  # beyond the mean the terms only fall
            break
    return min(total, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
