"""What ONNX lacks or rounds, in operations that it has: the same numbers, to the last digit but one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["PLAIN", "Plain"]


class Plain(TorchFunctionMode):
    """Within, functions of torch that ONNX has no equal of are made of such that it has."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return PLAIN.get(func, func)(*args, **(kwargs or {}))


def searchsorted(sequence: Tensor, values: Tensor, *, right: bool = False) -> Tensor:
    """Binary search, unrolled: log2 of the length gathers, each of one number a value; exact.

    >>> searchsorted(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 9.0])).tolist()
    [0, 1, 4]
    """
    length = sequence.shape[-1]
    below = torch.zeros_like(values, dtype=torch.int64)  # so many entries are known to be below each value
    step = 1 << length.bit_length() >> 1
    while step:
        more = below + step
        last = (more - 1).clamp_max(length - 1)
        entry = sequence[last] if sequence.ndim == 1 else sequence.gather(-1, last)
        is_below = (entry <= values if right else entry < values) & (more <= length)
        below = torch.where(is_below, more, below)
        step >>= 1
    return below


def bucketize(values: Tensor, boundaries: Tensor, *, right: bool = False) -> Tensor:
    """As `searchsorted`.

    >>> bucketize(torch.tensor([0.0, 2.0, 9.0]), torch.tensor([1.0, 2.0])).tolist()
    [0, 1, 2]
    """
    return searchsorted(boundaries, values, right=right)


def log1p(values: Tensor) -> Tensor:
    """Log of 1 + x without the digits that the sum loses (Kahan): the quotient of two errors that cancel.

    >>> float(log1p(torch.tensor(1e-9))), float(log1p(torch.tensor(-1.0)))
    (9.999999717180685e-10, -inf)
    """
    total = 1 + values
    lost = (total == 1) | torch.isinf(total)
    corrected = total.log() * (values / torch.where(lost, 1.0, total - 1))
    return torch.where(lost, values, corrected)


def expm1(values: Tensor) -> Tensor:
    """exp(x) - 1 without the digits that the difference loses (Kahan).

    >>> float(expm1(torch.tensor(1e-9))), float(expm1(torch.tensor(-torch.inf)))
    (9.999999717180685e-10, -1.0)
    """
    grown = values.exp()
    logs = grown.log()
    near = (grown == 1) | (grown == 0) | torch.isinf(grown)
    corrected = (grown - 1) * (values / torch.where(near, 1.0, logs))
    return torch.where(grown == 1, values, torch.where(near, grown - 1, corrected))


def softplus(values: Tensor) -> Tensor:
    """log(1 + exp x), which ONNX Runtime has in single precision alone.

    >>> softplus(torch.tensor([-800.0, 800.0])).tolist()
    [0.0, 800.0]
    """
    return values.clamp_min(0) + log1p((-values.abs()).exp())


def logsigmoid(values: Tensor) -> Tensor:
    """-log(1 + exp -x), where ONNX takes the logarithm of what is 0 from some x on.

    >>> logsigmoid(torch.tensor([-800.0, 800.0])).tolist()
    [-800.0, -0.0]
    """
    return -softplus(-values)


def nextafter(values: Tensor, towards: Tensor) -> Tensor:
    """The next number upwards, or the one after it; `towards` is infinity wherever intervals are rounded.

    >>> float(nextafter(torch.tensor(1.0), torch.tensor(torch.inf))) - 1 < 3e-7
    True
    """
    del towards
    kind = torch.finfo(values.dtype)
    return values + (values.abs() * kind.eps).clamp_min(kind.tiny)


def ndtr(values: Tensor) -> Tensor:
    """The distribution function of a standard normal variable, to 1e-15: ONNX Runtime has erf in single precision.

    Source: J. Hart et al., Computer Approximations, 1968, 5666, as printed by G. West, Better approximations to
    cumulative normal functions, Wilmott 2005.

    >>> ndtr(torch.tensor([-1.959963984540054, 0.0, 40.0], dtype=torch.float64))
    tensor([0.0250, 0.5000, 1.0000], dtype=torch.float64)
    """
    size = values.abs()
    above, below = torch.zeros_like(size), torch.zeros_like(size)
    for number in ABOVE:
        above = above * size + number
    for number in BELOW:
        below = below * size + number
    tail = (-size * size / 2).exp() * (above / below)
    return torch.where(values > 0, 1 - tail, tail)


ABOVE = (
    3.52624965998911e-02, 0.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871, 221.213596169931,
    220.206867912376,
)  # fmt: skip
BELOW = (
    8.83883476483184e-02, 1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674, 637.333633378831,
    793.826512519948, 440.413735824752,
)  # fmt: skip
"""Of numerator and denominator, the highest power first."""


def quantile(values: Tensor, level: float, dim: int = 0) -> Tensor:
    """The quantile along an axis, between two of the values where it lies there.

    >>> float(quantile(torch.tensor([2.0, 0.0, 1.0]), 0.25))
    0.5
    """
    place = level * (values.shape[dim] - 1)
    low, ordered = int(place), values.sort(dim=dim).values
    first, last = (ordered.select(dim, min(low + step, values.shape[dim] - 1)) for step in (0, 1))
    return first + (place - low) * (last - first)


def isfinite(values: Tensor) -> Tensor:
    """Of whole numbers, which ONNX does not ask, each is.

    >>> isfinite(torch.tensor([3])).tolist(), isfinite(torch.tensor([torch.inf, 0.0])).tolist()
    ([True], [False, True])
    """
    return torch.isfinite(values) if values.is_floating_point() else torch.ones_like(values, dtype=torch.bool)


def cdist(one: Tensor, other: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    """Distances of all pairs of rows, from their differences in any mode.

    >>> cdist(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    return torch.linalg.vector_norm(one.unsqueeze(-2) - other.unsqueeze(-3), ord=p, dim=-1)


def argsort(values: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Positions in order; the sort of ONNX is a stable one in any case.

    >>> argsort(torch.tensor([2.0, 3.0, 1.0])).tolist()
    [2, 0, 1]
    """
    return values.sort(dim=dim, descending=descending).indices


PLAIN: Mapping[Any, Callable[..., Any]] = {
    torch.searchsorted: searchsorted,
    torch.bucketize: bucketize,
    torch.log1p: log1p,
    Tensor.log1p: log1p,
    torch.expm1: expm1,
    Tensor.expm1: expm1,
    torch.isfinite: isfinite,
    functional.softplus: softplus,
    functional.logsigmoid: logsigmoid,
    torch.nextafter: nextafter,
    torch.special.ndtr: ndtr,
    Tensor.quantile: quantile,
    torch.cdist: cdist,
    torch.argsort: argsort,
    Tensor.argsort: argsort,
}
