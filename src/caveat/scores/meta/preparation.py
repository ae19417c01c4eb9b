"""Columns of very different size, made comparable; nothing is extrapolated beyond what was seen in fitting."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat.errors import DataError

__all__ = ["Preparation", "check", "drawn_seed", "one_thread", "prepare"]


@dataclass(frozen=True)
class Preparation:
    """A monotone map of every column by itself."""

    scale: Float[Tensor, " k"]
    low: Float[Tensor, " k"]
    """Least value in fitting, -inf without clipping."""
    high: Float[Tensor, " k"]
    mean: Float[Tensor, " k"]
    deviation: Float[Tensor, " k"]
    log: bool

    def __call__(self, columns: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Clip to the range seen, take asinh(x / scale) with `log`, standardise; in the type of `mean`."""
        seen = torch.maximum(torch.minimum(columns.to(self.mean.dtype), self.high), self.low)
        return ((torch.asinh(seen / self.scale) if self.log else seen) - self.mean) / self.deviation


def prepare(columns: Float[Tensor, "n k"], *, log: bool = True, clip: bool = True) -> Preparation:
    """Learn the map from the columns that a meta classifier is fitted on; in float64.

    Gradient norms go over ten decades, and those of remote inputs lie far outside of what held-out data show: a
    standardised linear model extrapolates them into nonsense.

    Parameters
    ----------
    log
        asinh(x / scale) with the median of |x| as scale: linear for small values, logarithmic for large ones, odd.
    clip
        To the range of `columns`.
    """
    columns = columns.double()
    scale = columns.abs().median(dim=0).values
    scale = torch.where(scale > 0, scale, columns.abs().mean(dim=0))
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    changed = torch.asinh(columns / scale) if log else columns
    deviation = changed.std(dim=0, correction=0)
    mean = changed.mean(dim=0)
    constant = deviation <= 1e-12 * (1 + mean.abs())
    infinite = torch.full_like(scale, torch.inf)
    return Preparation(
        scale,
        columns.amin(dim=0) if clip else -infinite,
        columns.amax(dim=0) if clip else infinite,
        mean,
        torch.where(constant, torch.ones_like(deviation), deviation),
        log,
    )


def check(columns: Float[Tensor, "n k"], wrong: Bool[Tensor, " n"], names: tuple[str, ...]) -> None:
    """Refuse what nothing can be learned from.

    Raises
    ------
    DataError
        If there are no columns, one is not finite, lengths differ, or all answers are of one kind.
    """
    if columns.ndim != 2 or not columns.numel():
        raise DataError(f"columns: expected scores (n, k), at least one of each, got {tuple(columns.shape)}")
    if len(wrong) != len(columns) or wrong.dtype != torch.bool:
        raise DataError(
            f"wrong: expected {len(columns)} booleans, one a sample, got {wrong.dtype} {tuple(wrong.shape)}"
        )
    if names and len(names) != columns.shape[1]:
        raise DataError(f"names: expected one for each of {columns.shape[1]} columns, got {len(names)}")
    bad = (~torch.isfinite(columns)).any(dim=0).nonzero().flatten()
    if len(bad):
        column = int(bad[0])
        raise DataError(f"columns: expected finite scores, column {names[column] if names else column} is not")
    if bool(wrong.all()) or not bool(wrong.any()):
        kind = "wrong or OOD" if bool(wrong.all()) else "right"
        raise DataError(
            f"wrong: expected right answers and wrong or OOD ones, all {len(wrong)} are {kind}; add some inputs "
            "that are known to be OOD, such as noise"
        )


def one_thread() -> AbstractContextManager[Any]:
    """For products of small matrices: on a busy CPU several threads of BLAS take thirty times as long."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def drawn_seed(generator: torch.Generator | None) -> int:
    """A number for scikit-learn; without a generator 0."""
    return 0 if generator is None else int(torch.randint(2**31 - 1, (), generator=generator))
