"""The order statistic on which every conformal promise rests."""

import math
from fractions import Fraction

from torch import Tensor

from caveat.errors import OptionError

__all__ = ["conformal_quantile"]


def conformal_quantile(scores: Tensor, error: float) -> Tensor:
    """The ⌈(n + 1)(1 - error)⌉-th smallest score, infinite if there are fewer.

    Raises
    ------
    OptionError
        If `error` is not in (0, 1).
    """
    if not 0 < error < 1:
        raise OptionError(f"error: expected a share in (0, 1), got {error}")
    # In fractions: (n + 1)(1 - error) in floating point can end just above the whole number that it is.
    k = math.ceil((len(scores) + 1) * (1 - Fraction(str(float(error)))))
    return scores.new_tensor(math.inf) if k > len(scores) else scores.sort().values[k - 1]
