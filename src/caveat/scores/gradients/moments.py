"""Seven statistics of many numbers a row, from sums that can be merged.

A row's sums stand in eight float64 columns: count, mean, central sums of powers two to four, sum of absolute values,
least and greatest. Sums about the mean merge without cancellation, unlike plain sums of powers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "STATISTICS",
    "Sums",
    "by_layer",
    "columns",
    "finished",
    "merged",
    "of_blocks",
    "of_outer",
    "of_rows",
    "of_zeros",
]

STATISTICS = ("l1", "l2", "min", "max", "mean", "skewness", "kurtosis")

Sums = Float[Tensor, "n 8"]


def of_rows(rows: Float[Tensor, "n k"]) -> Sums:
    """Sums of each row."""

    def make(factor: Tensor | None) -> Iterator[Tensor]:
        yield rows.clone() if factor is None else rows * factor.unsqueeze(1).to(rows.dtype)

    return of_blocks(make)


def of_blocks(make: Callable[[Tensor | None], Iterator[Float[Tensor, "n _"]]]) -> Sums:
    """Sums of rows that come in pieces, each small enough to stay in a cache and free to be written over.

    `make(factor)` goes through the rows, times `factor` if that is not None: a second time only if a row's numbers are
    so small or large that their fourth powers leave the range of float32.
    """
    sums = _of_all(make(None))
    size = torch.maximum(-sums[:, 6], sums[:, 7])
    if ((size == 0) | ((size > 1e-6) & (size < 1e6))).all():
        return sums
    size = size.masked_fill(size == 0, 1.0)
    powers = torch.stack([size**0, size, size**2, size**3, size**4, size, size, size], dim=1)
    return _of_all(make(1 / size)) * powers


def _of_all(blocks: Iterable[Float[Tensor, "n _"]]) -> Sums:
    found = [(block.shape[1], _of_block(block)) for block in blocks]
    parts = torch.stack([part for _, part in found], dim=1).double()
    counts = torch.tensor([count for count, _ in found], dtype=torch.float64, device=parts.device)
    return merged(torch.cat([counts.view(1, -1, 1).expand(len(parts), -1, 1), parts], dim=2))


def _of_block(rows: Float[Tensor, "n k"]) -> Float[Tensor, "n 7"]:
    """All but the count, with a pass for each; `rows` is overwritten."""
    if rows.dtype.itemsize < 4:
        rows = rows.float()
    low, high = rows.amin(dim=1), rows.amax(dim=1)
    mean = rows.sum(dim=1) / rows.shape[1]
    work = rows.abs()
    absolute = work.sum(dim=1)
    rows -= mean.unsqueeze(1)
    torch.mul(rows, rows, out=work)
    second = work.sum(dim=1)
    third = rows.mul_(work).sum(dim=1)
    fourth = torch.linalg.vector_norm(work, dim=1).square()
    return torch.stack([mean, second, third, fourth, absolute, low, high], dim=1)


def of_zeros(rows: int, count: int, like: Tensor) -> Sums:
    """Sums of `count` zeros, in `rows` rows, on the device of `like`."""
    sums = torch.zeros(rows, 8, dtype=torch.float64, device=like.device)
    sums[:, 0] = count
    return sums


def of_outer(left: Float[Tensor, "n a"], right: Float[Tensor, "n b"]) -> Sums:
    """Sums of all products of a number of `left` and one of `right`, without making them.

    With l = m + u and r = k + v (means and deviations), a product is mk + mv + ku + uv; sums of powers of the last
    three factorise, and those with a single u or v vanish.
    """
    a, m, u2, u3, u4, u_abs, u_low, u_high = of_rows(left).unbind(dim=1)
    b, k, v2, v3, v4, v_abs, v_low, v_high = of_rows(right).unbind(dim=1)
    mm, kk, mk = m * m, k * k, m * k
    second = a * mm * v2 + b * kk * u2 + u2 * v2
    third = a * mm * m * v3 + b * kk * k * u3 + u3 * v3 + 3 * m * u2 * v3 + 3 * k * u3 * v2 + 6 * mk * u2 * v2
    fourth = a * mm * mm * v4 + b * kk * kk * u4 + u4 * v4 + 4 * m * u3 * v4 + 4 * k * u4 * v3
    fourth = fourth + 6 * mm * kk * u2 * v2 + 6 * mm * u2 * v4 + 6 * kk * u4 * v2
    fourth = fourth + 12 * mm * k * u2 * v3 + 12 * kk * m * u3 * v2 + 12 * mk * u3 * v3
    corners = torch.stack([u_low * v_low, u_low * v_high, u_high * v_low, u_high * v_high])
    extremes = corners.amin(dim=0), corners.amax(dim=0)
    return torch.stack([a * b, mk, second, third, fourth, u_abs * v_abs, *extremes], dim=1)


def merged(parts: Float[Tensor, "*n k 8"]) -> Float[Tensor, "*n 8"]:
    """Sums of all numbers of the `k` parts together."""
    count, mean, second, third, fourth, absolute, low, high = parts.unbind(dim=-1)
    total = count.sum(dim=-1)
    whole = (count * mean).sum(dim=-1) / total
    d = mean - whole.unsqueeze(-1)
    fourth = (fourth + 4 * d * third + 6 * d**2 * second + count * d**4).sum(dim=-1)
    third = (third + 3 * d * second + count * d**3).sum(dim=-1)
    second = (second + count * d**2).sum(dim=-1)
    extremes = low.amin(dim=-1), high.amax(dim=-1)
    return torch.stack([total, whole, second, third, fourth, absolute.sum(dim=-1), *extremes], dim=-1)


def finished(sums: Float[Tensor, "*n 8"], *, rounding: float) -> Float[Tensor, "*n 7"]:
    """The statistics, in the order of `STATISTICS`; kurtosis is m4 / m2^2 (3 for a normal distribution).

    Numbers that are all equal up to `rounding` times the largest have no skewness and kurtosis: both are 0. So is a
    mean that is rounding alone, as that of the head's gradient: what is learned from it would depend on the batch.
    """
    count, mean, second, third, fourth, absolute, low, high = sums.unbind(dim=-1)
    mean = mean.masked_fill(mean.abs() <= 8 * rounding * absolute / count, 0.0)
    length = (second + count * mean**2).sqrt()
    constant = second <= count * (8 * rounding * torch.maximum(-low, high)) ** 2
    second = second.masked_fill(constant, 1.0)
    skewness = (third * count.sqrt() / second**1.5).masked_fill(constant, 0.0)
    kurtosis = (fourth * count / second**2).masked_fill(constant, 0.0)
    return torch.stack([absolute, length, low, high, mean, skewness, kurtosis], dim=-1)


def by_layer(layers: Sequence[Sequence[Sums]], *, rounding: float) -> Float[Tensor, "n l 7"]:
    """The statistics of each layer, whose parts' sums stand together, and, last, of all layers together."""
    each = torch.stack([merged(torch.stack(list(parts), dim=1)) for parts in layers], dim=1)
    return finished(torch.cat([each, merged(each).unsqueeze(1)], dim=1), rounding=rounding)


def columns(reported: Sequence[str]) -> tuple[str, ...]:
    """What each number is, layer by layer: `layer/statistic`."""
    return tuple(f"{layer}/{statistic}" for layer in reported for statistic in STATISTICS)
