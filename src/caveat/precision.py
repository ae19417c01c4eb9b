"""Numbers as they may be computed with: in at least single precision, and finite."""

import math

import torch
from torch import Tensor

__all__ = ["all_finite", "ends", "wide"]


def wide(numbers: Tensor) -> Tensor:
    """At least single precision: scores of half-precision numbers tie, overflow and lose their last digits.

    >>> import torch
    >>> wide(torch.ones(1, dtype=torch.float16)).dtype, wide(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return numbers.float() if numbers.is_floating_point() and numbers.dtype.itemsize < 4 else numbers


def ends(numbers: Tensor) -> tuple[float, float]:
    """The smallest and the largest; NaN for both where one is. A GPU is waited for once."""
    low, high = torch.stack(torch.aminmax(numbers.detach())).tolist()
    return low, high


def all_finite(numbers: Tensor) -> bool:
    """Whether none is NaN or infinite, by the smallest and the largest: a twentieth of the time of a mask.

    >>> all_finite(torch.ones(2, 3)), all_finite(torch.tensor([1.0, torch.nan])), all_finite(torch.zeros(0))
    (True, False, True)
    """
    return not numbers.numel() or all(map(math.isfinite, ends(numbers)))
