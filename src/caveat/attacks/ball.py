"""The set an attack searches: all inputs within a radius of the given one that also lie in the box of valid inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.attacks.noise import Noise, drawn
from caveat.errors import DataError, OptionError

__all__ = ["Ball"]

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
        for name in ("norm", "radius", "low", "high"):
            value: object = getattr(self, name)
            open_side = value is None and name in ("low", "high")
            if not open_side and (isinstance(value, bool) or not isinstance(value, Real)):
                raise OptionError(f"{name}: expected a number, got {value!r}")
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
        rooms, threshold = self._rooms(centres), torch.zeros_like(centres.flatten(1)[:, :1])

        def nearest(points: Tensor) -> Tensor:
            nonlocal threshold  # that of the last projection is near this one's, and found in half the rounds
            if self.radius == 0:
                return centres.clone()
            away = (points - centres).flatten(1)
            if self.norm == 2:
                return self._moved(centres, _scaled(away, rooms, self.radius, most=1))
            size, room = _seen(away, rooms)
            share, threshold = _thresholded(size, room, self.radius, near=threshold)
            return self._moved(centres, share.copysign_(away))

        return nearest

    def within(self, points: Tensor, centres: Tensor, radii: Float[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """The points drawn into the box and balls of the samples' own radii, which may be inf, not the ball's.

        For 1 and inf the nearest ones; for 2 drawn towards the centre, then into the box.
        """
        away, limit = (points - centres).flatten(1), radii[:, None]
        if self.norm == math.inf:
            away = away.clamp(-limit, limit)
        elif self.norm == 2:
            size = torch.linalg.vector_norm(away, dim=1, keepdim=True).clamp_min(torch.finfo(away.dtype).tiny)
            away = away * (limit / size).clamp_max(1)
        else:
            away = _thresholded(*_seen(away, self._rooms(centres)), limit)[0].copysign_(away)
        return self.boxed(centres + away.reshape(centres.shape), centres)

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
        flat, rooms = gradient.flatten(1), self._rooms(centres)
        if self.norm == 2:
            return self._moved(centres, _scaled(flat, rooms, self.radius))
        return self._moved(centres, _greedy(*_seen(flat, rooms), self.radius).copysign_(flat))

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
        unit = flat / _largest(flat)
        size = torch.linalg.vector_norm(unit, dim=1, keepdim=True) if self.norm == 2 else torch.ones_like(unit[:, :1])
        return points.flatten(1).addcmul(unit, length / size.clamp_min(1)).reshape(points.shape)

    def slopes(self, points: Float[Tensor, "n ..."], gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The sizes of a gradient's values, 0 where the box leaves a point no room to go uphill."""
        size, room = _seen(gradient.flatten(1), self._rooms(points))
        return size.mul_(room.sign_()).reshape(points.shape)

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

    def _ends(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        """The box, or where a centre is outside of it by rounding, no further out."""
        low = centres.new_tensor(-math.inf) if self.low is None else centres.clamp_max(self.low)
        return low, centres.new_tensor(math.inf) if self.high is None else centres.clamp_min(self.high)

    def _rooms(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        """How far each value may go down, as numbers <= 0, and up within the box, as (n, d)."""
        low, high = self._ends(centres)
        return (low - centres).flatten(1), (high - centres).flatten(1)

    def _moved(self, centres: Tensor, change: Tensor) -> Tensor:
        """The centres changed by (n, d), which is written over."""
        size = torch.linalg.vector_norm(change, dim=1) if self.norm == 2 else change.abs().sum(1)
        change /= (size / self.radius).clamp_min(1)[:, None]  # towards the centre: cannot leave the box
        return self.boxed(change.reshape(centres.shape).add_(centres), centres)

    def boxed(self, points: Tensor, centres: Tensor) -> Tensor:
        """In the box, or where a centre is outside of it by rounding, no further out."""
        return points.clamp(*self._ends(centres))


# On a CPU masks cost ten times what arithmetic does (`where`, comparisons), so below values are clamped and multiplied.


def _seen(direction: Tensor, rooms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Size of a direction (n, d), and how far each value may go that way."""
    return direction.abs(), torch.copysign(direction.new_tensor(math.inf), direction).clamp_(*rooms).abs_()


def _largest(flat: Tensor) -> Tensor:
    return flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)


def _scaled(flat: Tensor, rooms: tuple[Tensor, Tensor], radius: int | float, *, most: int | float = math.inf) -> Tensor:
    """The values t v, cut off at their rooms, with the t at which their Euclidean norm is the radius, at most `most`.

    All the rooms if it never is. A value that has no room left at some t has none at a larger one, so fixing those and
    solving for the others climbs to the answer and ends with it.
    """
    scale = _largest(flat)
    unit, ceiling = flat / scale, most * scale
    t = torch.minimum(radius / torch.linalg.vector_norm(unit, dim=1, keepdim=True).clamp_min(1), ceiling)
    wanted, free = torch.empty_like(unit), torch.empty_like(unit)
    share = unit
    for _ in range(ROUNDS):
        torch.mul(unit, t, out=wanted)
        share = wanted.clamp(*rooms)
        torch.eq(share, wanted, out=free)  # 1 where there is room left, 0 where there is none
        spent = torch.linalg.vector_norm(torch.addcmul(share, share, free, value=-1), dim=1, keepdim=True)
        slope = torch.linalg.vector_norm(free.mul_(unit), dim=1, keepdim=True)
        further = (radius**2 - spent.square()).clamp_min(0).sqrt() / slope.clamp_min(torch.finfo(t.dtype).tiny)
        further = torch.where(slope > 0, torch.maximum(torch.minimum(further, ceiling), t), t)
        if torch.equal(further, t):
            break
        t = further
    return share


def _thresholded(
    size: Tensor, room: Tensor, radius: int | float | Tensor, *, near: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The values min(max(size - t, 0), room) with the least t >= 0 at which their sum is at most the radius, and t.

    The sum falls along straight pieces, one slope for each number of values between their ends: Newton's step is exact
    from the right piece, and where it would leave what is known to enclose t, halving takes its place. A row that has
    arrived stays, so that it does not depend on the others. `near` is where to begin.
    """
    zero = torch.zeros_like(size[:, :1])
    least, most = zero - 1, size.amax(1, keepdim=True)  # 0 itself may be the answer
    t = zero if near is None else torch.minimum(near, most)
    close = 4 * torch.finfo(size.dtype).eps * radius
    arrived, falls = torch.zeros_like(t, dtype=torch.bool), torch.empty_like(size)
    for _ in range(ROUNDS):
        left = size - t
        share = left.clamp(zero, room)
        excess = share.sum(1, keepdim=True) - radius
        arrived |= (excess <= close) & ((excess >= -close) | (t == 0))
        if bool(arrived.all()):
            break
        least, most = torch.where(excess > 0, t, least), torch.where(excess > 0, most, t)
        newton = t + excess / torch.eq(share, left, out=falls).sum(1, keepdim=True).clamp_min(1)
        newton, middle = newton.clamp_min(0), (least.clamp_min(0) + most) / 2
        step = torch.where((newton > least) & (newton < most), newton, middle)
        last = (step <= least) | (step >= most)  # nothing lies between: t is known to the last digit
        t = torch.where(arrived, t, torch.where(last, most, step))
        arrived |= last
    return (size - t).clamp_(zero, room), t


def _greedy(size: Tensor, room: Tensor, radius: int | float) -> Tensor:
    """The room of the largest in turn, until the radius is spent."""
    order = size.argsort(dim=1, descending=True, stable=True)
    ordered = torch.where(size > 0, room.clamp_max(radius), 0).gather(1, order)
    left = radius - (ordered.cumsum(1) - ordered)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(left.clamp_min(0), ordered))
