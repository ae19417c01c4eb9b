"""The set an attack searches: all inputs within a radius of the given one that also lie in the box of valid inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.attacks.noise import Noise, drawn
from caveat.errors import DataError, OptionError

__all__ = ["Ball", "shortened"]

NORMS = (1, 2, math.inf)
ROUNDS = 200  # of solving for the multiplier; a handful is usual


@dataclass(frozen=True)
class Ball:
    """Norm, radius and box in one: it projects, samples and knows the furthest point along a gradient.

    `norm` is 1, 2 or inf; `radius` is in the inputs' units, over all values of a sample together. The box is
    `low <= value <= high`; None leaves a side open. Every point it gives is in the box exactly and in the ball up to
    the rounding of its type. Where a model normalises, put that into the model (`models.Normalized`), so that the box
    is the pictures'.

    Raises
    ------
    OptionError
        If the norm is another one, the radius negative or not finite, or the box empty.

    Example
    -------
    >>> ball = Ball(math.inf, 0.3)
    >>> ball.project(torch.tensor([[1.7, 0.4]]), torch.tensor([[0.5, 0.5]]))
    tensor([[0.8000, 0.4000]])
    """

    norm: int | float
    radius: int | float
    low: int | float | None = 0.0
    high: int | float | None = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise OptionError(f"norm: expected 1, 2 or inf, got {self.norm}")
        if not 0 <= self.radius < math.inf:
            raise OptionError(f"radius: expected a finite number >= 0, got {self.radius}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise OptionError(f"low, high: expected low < high, got {self.low} and {self.high}")

    def resized(self, radius: int | float) -> "Ball":
        """The same norm and box with another radius."""
        return replace(self, radius=radius)

    def check(self, centres: Float[Tensor, "n ..."]) -> None:
        """Refuse centres that are NaN, or outside of the box by more than rounding (1e-5 of the largest value)."""
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        slack = 1e-5 * max(1.0, *(abs(end) for end in (low, high) if math.isfinite(end)), 0.0)
        if not bool(((centres >= low - slack) & (centres <= high + slack)).all()):
            raise DataError(
                f"inputs: expected values in [{low:g}, {high:g}], the ball's box, got {float(centres.min()):g} to "
                f"{float(centres.max()):g}; give the ball the box of your inputs, or None for no box"
            )

    def project(self, points: Float[Tensor, "n ..."], centres: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The nearest point (in the Euclidean sense) of ball and box together, for each of `points`.

        With v = point - centre and the box seen from the centre, [l, u] with l <= 0 <= u, the nearest d is clip(v) for
        inf, clip(t v) with one t in [0, 1] for 2, and clip(sign(v) max(|v| - t, 0)) with one t >= 0 for 1: t is the
        multiplier of the norm's constraint and is solved for. (Clipping first and projecting then, or the other way
        round, gives another point for 1 and 2.)
        """
        return self.projector(centres)(points)

    def projector(self, centres: Float[Tensor, "n ..."]) -> Callable[[Tensor], Tensor]:
        """The same as a function of the points alone, for many projections: for inf they are one operation each."""
        if self.norm == math.inf:
            low = self.boxed(centres - self.radius, centres)
            high = self.boxed(centres + self.radius, centres)
            return lambda points: points.clamp(low, high)
        rooms = self._rooms(centres)
        return lambda points: self._nearest(points, centres, rooms)

    def _nearest(self, points: Tensor, centres: Tensor, rooms: tuple[Tensor, Tensor]) -> Tensor:
        if self.radius == 0:
            return centres.clone()
        size, sign, room = _seen(points - centres, rooms)
        if self.norm == 2:
            share = torch.minimum(_scaled(size, room, self.radius), size)
        else:
            share = _thresholded(size, room, self.radius)
        return self._moved(centres, sign, share)

    def furthest(self, centres: Float[Tensor, "n ..."], gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The point of ball and box that is furthest along `gradient`: where a linear function is largest.

        For inf all values move to the end of their room; for 2 along the gradient, clipped, as far as the radius
        allows; for 1 the values of largest gradient in turn, each to the end of its room, until the radius is spent.
        Values of gradient 0 stay.
        """
        if self.norm == math.inf:
            return self.boxed(centres + self.radius * gradient.sign(), centres)
        if self.radius == 0:
            return centres.clone()
        size, sign, room = _seen(gradient, self._rooms(centres))
        share = _scaled(size, room, self.radius) if self.norm == 2 else _greedy(size, room, self.radius)
        return self._moved(centres, sign, share)

    def step(
        self, points: Float[Tensor, "n ..."], gradient: Float[Tensor, "n ..."], length: int | float
    ) -> Float[Tensor, "n ..."]:
        """A step uphill, to be projected: it may leave ball and box. The best point of a linear function stays there.

        For inf along the gradient's sign; for 2 along the gradient, `length` long; for 1 along the gradient too, but so
        that the value of largest gradient moves by `length`: the projection then takes the small moves back.
        """
        if self.norm == math.inf:
            return points.add(gradient.sign(), alpha=length)
        flat = gradient.flatten(1)
        unit = flat / flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        if self.norm == 2:
            unit = unit / torch.linalg.vector_norm(unit, dim=1, keepdim=True).clamp_min(1)
        return points + (length * unit).reshape(points.shape)

    def slopes(self, points: Float[Tensor, "n ..."], gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The sizes of a gradient's values, 0 where the box leaves a point no room to go uphill."""
        shut = torch.zeros_like(points, dtype=torch.bool)
        if self.high is not None:
            shut |= (gradient > 0) & (points >= self.high)
        if self.low is not None:
            shut |= (gradient < 0) & (points <= self.low)
        return gradient.abs().masked_fill(shut, 0)

    def sample(self, centres: Float[Tensor, "n ..."], generator: torch.Generator) -> Float[Tensor, "n ..."]:
        """A point of the ball for each centre, uniform; what leaves the box is projected back."""
        return self.sample_from(centres, drawn(len(centres), generator, centres.device), stream=0)

    def sample_from(
        self, centres: Float[Tensor, "n ..."], noise: Noise, *, stream: int, shrunk: bool = False
    ) -> Float[Tensor, "n ..."]:
        """The same from numbers that belong to the samples.

        shrunk
            In a ball whose radius is, for each sample by itself, uniform in (0, radius).

        Source: for norms 1 and 2 Barthe et al., A probabilistic approach to the geometry of the l_p^n-ball, Annals of
        Probability 2005 (g / (|g|_p^p + z)^(1/p) with density exp(-|g|^p) and z exponential is uniform).
        """
        shape = centres.shape
        numbers = math.prod(shape[1:])
        uniform = noise.uniform(numbers + 2, stream=stream)
        spread = 2 * uniform[:, :numbers] - 1
        if self.norm == 1:
            spread = spread.sign() * -torch.log1p(-spread.abs())
        elif self.norm == 2:
            spread = torch.erfinv(spread)
        if self.norm != math.inf:
            total = spread.abs().pow(self.norm).sum(1) - uniform[:, -2].log()
            spread = spread / total.pow(1 / self.norm)[:, None]
        radii = self.radius * uniform[:, -1:] if shrunk else self.radius
        return self.project(centres + (spread * radii).reshape(shape).to(centres.dtype), centres)

    def distance(self, points: Float[Tensor, "n ..."], centres: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """How far each point is from its centre, in the ball's norm."""
        return torch.linalg.vector_norm((points - centres).flatten(1), self.norm, dim=1)

    def _rooms(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        """How far each value may go up and down within the box, as (n, d)."""
        flat = centres.flatten(1)
        up = torch.full_like(flat, math.inf) if self.high is None else (self.high - flat).clamp_min(0)
        down = torch.full_like(flat, math.inf) if self.low is None else (flat - self.low).clamp_min(0)
        return up, down

    def _moved(self, centres: Tensor, sign: Tensor, share: Tensor) -> Tensor:
        excess = torch.linalg.vector_norm(share, self.norm, dim=1, keepdim=True) / self.radius
        share = share / excess.clamp_min(1)  # towards the centre: cannot leave the box
        return self.boxed(centres + (sign * share).reshape(centres.shape), centres)

    def boxed(self, points: Tensor, centres: Tensor) -> Tensor:
        """In the box, or where a centre is outside of it by rounding, no further out."""
        if self.low is not None:
            points = torch.maximum(points, centres.clamp_max(self.low))
        if self.high is not None:
            points = torch.minimum(points, centres.clamp_min(self.high))
        return points


def _seen(direction: Tensor, rooms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Size and sign of a direction, and how far each value may go that way, as (n, d)."""
    flat = direction.flatten(1)
    return flat.abs(), flat.sign(), torch.where(flat > 0, *rooms)


def shortened(change: Float[Tensor, "n ..."], norm: int | float, radii: Float[Tensor, " n"]) -> Float[Tensor, "n ..."]:
    """The nearest change whose norm is at most the sample's own radius, box aside; a radius may be inf."""
    flat, limit = change.flatten(1), radii[:, None]
    if norm == math.inf:
        short = flat.clamp(-limit, limit)
    elif norm == 2:
        size = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        short = flat * (limit / size).clamp_max(1)
    else:
        size = flat.abs()
        short = flat.sign() * _thresholded(size, torch.full_like(size, math.inf), limit)
    return short.reshape(change.shape)


def _scaled(size: Tensor, room: Tensor, radius: int | float) -> Tensor:
    """The values min(t size, room) with the t at which their Euclidean norm is the radius; all the room if it never is.

    A value that has no room left at some t has none at a larger one, so fixing those and solving for the others climbs
    to the answer and ends with it.
    """
    size = size / size.amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    room = room.clamp_max(2 * radius)  # none is needed beyond: it keeps inf out of the sums
    squares, rooms = size.square(), room.square()
    t = radius / squares.sum(1, keepdim=True).sqrt().clamp_min(1)  # the largest is 1, or all are 0
    for _ in range(ROUNDS):
        full = t * size >= room
        left = (radius**2 - rooms.mul(full).sum(1, keepdim=True)).clamp_min(0)
        free = squares.mul(~full).sum(1, keepdim=True)
        further = torch.where(free > 0, torch.maximum((left / free).sqrt(), t), t)
        if torch.equal(further, t):
            break
        t = further
    return torch.minimum(t * size, room)


def _thresholded(size: Tensor, room: Tensor, radius: int | float | Tensor) -> Tensor:
    """The values min(max(size - t, 0), room) with the least t >= 0 at which their sum is at most the radius.

    The sum falls along straight pieces, one slope for each number of values between their ends: Newton's step is exact
    from the right piece, and where it would leave what is known to enclose t, halving takes its place. A row that has
    arrived stays, so that it does not depend on the others.
    """
    least, t = torch.zeros_like(size[:, :1]), torch.zeros_like(size[:, :1])
    most = size.amax(1, keepdim=True)
    close = 4 * torch.finfo(size.dtype).eps * radius
    arrived = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(ROUNDS):
        left = size - t
        share = torch.minimum(left.clamp_min(0), room)
        excess = share.sum(1, keepdim=True) - radius
        arrived |= (excess <= close) & ((excess >= -close) | (t == 0))
        if bool(arrived.all()):
            break
        least, most = torch.where(excess > 0, t, least), torch.where(excess > 0, most, t)
        newton = t + excess / (share == left).sum(1, keepdim=True).clamp_min(1)
        middle = (least + most) / 2
        step = torch.where((newton > least) & (newton < most), newton, middle)
        last = (step <= least) | (step >= most)  # nothing lies between: t is known to the last digit
        t = torch.where(arrived, t, torch.where(last, most, step))
        arrived |= last
    return torch.minimum((size - t).clamp_min(0), room)


def _greedy(size: Tensor, room: Tensor, radius: int | float) -> Tensor:
    """The room of the largest in turn, until the radius is spent."""
    order = size.argsort(dim=1, descending=True, stable=True)
    ordered = torch.where(size > 0, room.clamp_max(radius), 0).gather(1, order)
    left = radius - (ordered.cumsum(1) - ordered)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(left.clamp_min(0), ordered))
