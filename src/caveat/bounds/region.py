"""The set of inputs that bounds speak of: for each sample a ball, a box or both, or what lies between two lines."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.attacks import Ball
from caveat.bounds.interval import of_count, unit_in
from caveat.errors import DataError

__all__ = ["Between", "Box", "Region", "Rows"]

Box = tuple[Tensor, Tensor]
"""Lower and upper ends `(n, ...)` of every value of every sample."""
MANY = 16
"""Rows a sample from which on they are multiplied by themselves, not gathered."""


@dataclass(frozen=True)
class Rows:
    """To which sample each row of coefficients belongs; the samples in their order."""

    sample: Tensor
    """(r,), ascending."""

    @classmethod
    def each(cls, samples: int, times: int = 1, *, device: torch.device | str = "cpu") -> "Rows":
        """The same number of rows for every sample."""
        return cls(torch.arange(samples, device=device).repeat_interleave(times))

    def pick(self, values: Tensor) -> Tensor:
        """Of values `(n, ...)` those of every row."""
        if len(values) == len(self.sample) and bool((self.sample[1:] > self.sample[:-1]).all()):
            return values
        if len(self.sample) and self.sample[0] == self.sample[-1]:  # one sample: nothing is copied
            return values[self.sample[:1]].expand(len(self.sample), *values.shape[1:])
        return values[self.sample]

    def dot(self, rows: Float[Tensor, "r ..."], values: Float[Tensor, "n ..."]) -> Float[Tensor, " r"]:
        """Every row times the values of its sample, summed."""
        rows, values = rows.flatten(1), values.flatten(1)
        found, counts = self.sample.unique_consecutive(return_counts=True)
        if len(rows) <= MANY * len(found):  # also none at all
            return (rows * self.pick(values)).sum(1)
        parts = rows.split(counts.tolist())
        return torch.cat([part @ values[k] for k, part in zip(found.tolist(), parts, strict=True)])


@dataclass(frozen=True)
class Region:
    """In float64. A norm of inf means the box alone; otherwise box and ball, of which it holds what both hold."""

    centres: Float[Tensor, "n ..."]
    low: Float[Tensor, "n ..."]
    high: Float[Tensor, "n ..."]
    norm: int | float
    radius: float

    @classmethod
    def around(cls, inputs: Float[Tensor, "n ..."], where: Ball | Box) -> "Region":
        """A ball around every input (within its own box of valid values), or a box.

        The ball is widened by one rounding of the inputs' type, in which a point at its edge is written.

        Raises
        ------
        DataError
            If inputs are outside of the ball's box, or a box has not the inputs' shape or is empty.
        """
        if isinstance(where, Ball):
            where.check(inputs)
            centres = inputs.detach().double()
            unit = 0.0 if inputs.dtype == torch.float64 else torch.finfo(inputs.dtype).eps
            size = centres.abs() + where.radius
            wider = unit * size
            low, high = centres - where.radius - wider, centres + where.radius + wider
            if where.low is not None:
                low = torch.maximum(low, centres.clamp_max(where.low))
            if where.high is not None:
                high = torch.minimum(high, centres.clamp_min(where.high))
            more = torch.linalg.vector_norm(wider.flatten(1), where.norm, dim=1)
            return cls(centres, low, high, where.norm, where.radius + float(more.max()) if len(inputs) else 0.0)
        low, high = (end.detach().double() for end in where)
        if low.shape != inputs.shape or high.shape != inputs.shape or not bool((low <= high).all()):
            raise DataError(
                f"box: expected low <= high of the inputs' shape {tuple(inputs.shape)}, got shapes "
                f"{tuple(low.shape)} and {tuple(high.shape)}" + (" with low > high" if low.shape == high.shape else "")
            )
        return cls((low + high) / 2, low, high, math.inf, 0.0)

    def of(self, samples: Tensor) -> "Region":
        """That of some of the samples."""
        return Region(self.centres[samples], self.low[samples], self.high[samples], self.norm, self.radius)

    def light(self) -> "Region":
        """In float32."""
        return Region(self.centres.float(), self.low.float(), self.high.float(), self.norm, self.radius)

    def least(self, coefficients: Float[Tensor, "r ..."], rows: Rows) -> Float[Tensor, " r"]:
        """A lower bound of `coefficients . x` over the region: exact over the box alone, and over the ball alone.

        A region of one sample is that of every row.

        Formula: a.m - |a|.r over the box of middle m and half width r; a.c - radius |a|_q over a ball, q the dual norm.
        Of both the larger is taken.
        """
        if len(self.low) == 1:
            rows = Rows(torch.zeros_like(rows.sample))
        exact = coefficients.to(torch.promote_types(coefficients.dtype, self.low.dtype))
        more = 1 + 2 * of_count(self.low[0].numel(), unit_in(coefficients.dtype))
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        found = rows.dot(exact, middle) - more * rows.dot(coefficients.abs(), half.to(coefficients.dtype)).to(
            exact.dtype
        )
        if self.norm == math.inf:
            return found
        dual = math.inf if self.norm == 1 else 2
        size = torch.linalg.vector_norm(exact.flatten(1), dual, dim=1)
        return torch.maximum(found, rows.dot(exact, self.centres) - self.radius * size)

    def minimiser(self, coefficients: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """A point of each sample's region where `coefficients . x` is small, one row a sample: a guess for attacks."""
        return torch.where(coefficients > 0, self.low, self.high)


@dataclass(frozen=True)
class Between:
    """Inputs that lie between two linear functions of a few parameters in [-1, 1], and in a box; in float64."""

    low: Float[Tensor, "n ..."]
    high: Float[Tensor, "n ..."]
    low_slope: Float[Tensor, "n d ..."]
    low_offset: Float[Tensor, "n ..."]
    high_slope: Float[Tensor, "n d ..."]
    high_offset: Float[Tensor, "n ..."]
    norm: int | float = math.nan
    """Of no ball: intervals are never as good."""

    def of(self, samples: Tensor) -> "Between":
        """That of some of the samples."""
        lines = (self.low_slope, self.low_offset, self.high_slope, self.high_offset)
        below, low, above, high = (line[samples] for line in lines)
        return Between(self.low[samples], self.high[samples], below, low, above, high)

    def light(self) -> "Between":
        """In float32."""
        return Between(
            self.low.float(), self.high.float(), self.low_slope.float(), self.low_offset.float(),
            self.high_slope.float(), self.high_offset.float(),
        )  # fmt: skip

    def least(self, coefficients: Float[Tensor, "r ..."], rows: Rows) -> Float[Tensor, " r"]:
        """A lower bound of `coefficients . x`: the better of that over the box and that over the parameters.

        Formula: a+ (W_l k + b_l) + a- (W_u k + b_u) = c + g.k, least c - |g|_1 over k in [-1, 1].
        """
        coefficients = coefficients.to(torch.promote_types(coefficients.dtype, self.low.dtype))
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        box = rows.dot(coefficients, middle) - rows.dot(coefficients.abs(), half)
        up, down = coefficients.clamp_min(0), coefficients.clamp_max(0)
        found = rows.dot(up, self.low_offset) + rows.dot(down, self.high_offset)
        for axis in range(self.low_slope.shape[1]):
            slope = rows.dot(up, self.low_slope[:, axis]) + rows.dot(down, self.high_slope[:, axis])
            found = found - slope.abs()
        return torch.maximum(box, found)

    def minimiser(self, coefficients: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """As that of `Region`."""
        return torch.where(coefficients > 0, self.low, self.high)
