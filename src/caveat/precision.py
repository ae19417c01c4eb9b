"""In which precision numbers are computed with: at least single, whatever a network gives."""

from torch import Tensor

__all__ = ["wide"]


def wide(numbers: Tensor) -> Tensor:
    """At least single precision: scores of half-precision numbers tie, overflow and lose their last digits.

    >>> import torch
    >>> wide(torch.ones(1, dtype=torch.float16)).dtype, wide(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return numbers.float() if numbers.is_floating_point() and numbers.dtype.itemsize < 4 else numbers
