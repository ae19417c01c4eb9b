"""Linear bounds of every pixel of a transformed picture in the transformation's parameters, over a box of them.

Three steps, each for all pixels of all pictures and boxes at once. The value of a pixel is sampled, and the plane that
touches the samples' lower convex hull above the box's middle is found (a linear programme, by pivoting). How far the
pixel falls below that plane between the samples is bounded by branch and bound with the pixel's interval gradient, and
the plane is moved down by as much. Upper bounds are lower ones of the negated pixel.

Floating point: in float64. The pixel stands for the one that `attacks.transformation.applied` computes in the type of
the pictures: its place may be off by `PLACE` units of the picture's size and its value by `VALUE` units, which bounds
pay for.
"""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from caveat.attacks.transformation import AXES, TURN, applied, centred, sources
from caveat.bounds.region import Between

__all__ = ["Boxes", "between", "plane", "samples_of", "whole"]

SAMPLES = {1: 33}
MORE = 64
"""Samples of each axis where there are several."""
PIVOTS = 40
ROUNDS = 40
LIVE = 32
"""Parts of a box that may be open at once for a pixel: with several parameters few pixels would take all the time."""
TOLERANCE = 1e-4
"""To which the excess over a plane is found: this, or this share of the gap if that is more."""
SHARE = 0.005
ROUGH = 2e-3
"""The same of the least and largest value, which only matter where lines are loose."""
PLACE, VALUE = 8.0, 16.0
SLACK = 1e-11
BORDER = 3
"""Zeros around a picture."""
WINDOW = 2
"""Cells along an axis whose slopes are looked at one by one; of more the steepest of the picture is taken."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of the parameters `axes` (columns of `AXES`), each with the place of its picture."""

    axes: tuple[int, ...]
    picture: Tensor
    """(m,)"""
    centre: Float[Tensor, "m d"]
    half: Float[Tensor, "m d"]

    def of(self, rows: Tensor | slice) -> "Boxes":
        """Some of them."""
        return Boxes(self.axes, self.picture[rows], self.centre[rows], self.half[rows])

    def __len__(self) -> int:
        return len(self.picture)

    def parameters(self, at: Float[Tensor, "m ... d"]) -> Float[Tensor, "m ... 7"]:
        """All parameters at places of the boxes in [-1, 1]."""
        shape = (len(self), *[1] * (at.ndim - 2), len(self.axes))
        return whole(self.centre.reshape(shape) + self.half.reshape(shape) * at, self.axes)


def whole(values: Float[Tensor, "... d"], axes: tuple[int, ...]) -> Float[Tensor, "... 7"]:
    """All parameters, those that are not named 0."""
    found = values.new_zeros(*values.shape[:-1], len(AXES))
    found[..., list(axes)] = values
    return found


def between(pictures: Float[Tensor, "n c h w"], boxes: Boxes, *, unit: float, lines: bool = True) -> Between:
    """What the transformed pictures cannot leave: one row for each box; without `lines` constants alone.

    `unit` is half of the epsilon of the type in which pictures are transformed; `pictures` are in float64.

    Source: Balunovic, Baader, Singh, Gehr and Vechev, Certifying geometric robustness of neural networks, NeurIPS 2019
    (DeepG): sections 4 and 5, with the linear programme solved by pivoting and gradients of our own.
    """
    m, shape, d = len(boxes), pictures.shape[1:], len(boxes.axes)
    points = samples_of(d, pictures) if lines else pictures.new_zeros(1, d)
    every = boxes.parameters(points.expand(m, *points.shape)).flatten(0, 1)
    drawn = applied(pictures[boxes.picture].repeat_interleave(len(points), dim=0), every)
    drawn = drawn.reshape(m, len(points), -1).transpose(1, 2)  # (m, p, k)
    least, most = drawn.amin(2), drawn.amax(2)
    flat = torch.zeros(m, drawn.shape[1], d, dtype=drawn.dtype, device=drawn.device)
    rough = torch.full_like(most, ROUGH)
    tried = [(1, flat, least, rough), (-1, flat, -most, rough)]
    for sign in (1, -1) if lines else ():
        slope, offset = plane((sign * drawn).flatten(0, 1), points)
        tried.append((sign, slope.reshape(m, -1, d), offset.reshape(m, -1), TOLERANCE + SHARE * (most - least)))
    signs, slopes, offsets, tolerances = zip(*tried, strict=True)
    slope, offset = torch.stack(slopes), torch.stack(offsets)
    offset = offset - _Search(pictures, boxes, unit).excess(
        slope, offset, torch.tensor(signs).to(offset), torch.stack(tolerances)
    )
    low, high = offset[0], -offset[1]
    if not lines:
        return _between(low, high, (flat, low), (flat, high), shape)
    reach = offset[2:] - slope[2:].abs().sum(3)  # a line's least value may be the better constant
    low, high = torch.maximum(low, reach[0]), torch.minimum(high, -reach[1])
    limit = torch.stack([low, -high])
    worse = limit > offset[2:]  # at the middle, where the gap is that of the mean
    slope, offset = torch.where(worse[..., None], 0, slope[2:]), torch.where(worse, limit, offset[2:])
    return _between(low, high, (slope[0], offset[0]), (-slope[1], -offset[1]), shape)


def _between(
    low: Tensor, high: Tensor, below: tuple[Tensor, Tensor], above: tuple[Tensor, Tensor], shape: torch.Size
) -> Between:
    def lines(end: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return end[0].transpose(1, 2).unflatten(2, shape), end[1].unflatten(1, shape)

    return Between(low.unflatten(1, shape), high.unflatten(1, shape), *lines(below), *lines(above))


def samples_of(d: int, like: Tensor) -> Float[Tensor, "k d"]:
    """Places in [-1, 1]: first the corners of a simplex around 0, then such as fill the box, its corners last."""
    first = torch.cat([-torch.ones(1, d), torch.eye(d)])
    if d == 1:  # an even number, so that none is at 0: there the plane would be one of many
        return torch.cat([first, torch.linspace(-1, 1, SAMPLES[1] + 1)[1:-1, None]]).to(like)
    even = 2 * torch.quasirandom.SobolEngine(d).draw(MORE * d)[1:] - 1
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d)))
    return torch.cat([first, even, corners]).to(like)


def plane(
    values: Float[Tensor, "b k"], points: Float[Tensor, "k d"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
    """Slope and offset of the plane below the values that is highest at 0: the simplex method, on all rows at once.

    The first d + 1 points must hold 0 strictly between them. Rounding, and a row that did not end, may leave a value
    below its plane.
    """
    d = points.shape[1]
    rows = torch.cat([torch.ones_like(points[:, :1]), points], dim=1)
    basis = torch.arange(d + 1, device=points.device).repeat(len(values), 1)
    inverse = torch.linalg.inv(rows[: d + 1]).repeat(len(values), 1, 1)
    found = (inverse @ values[:, : d + 1, None]).squeeze(2)
    active = torch.arange(len(values), device=values.device)
    for _ in range(PIVOTS):
        below, enters = (values[active] - found[active] @ rows.T).min(dim=1)
        going = below < -1e-9
        active, enters = active[going], enters[going]
        if not len(active):
            break
        now = inverse[active]
        parts = (rows[enters][:, None] @ now).squeeze(1)
        ratio = torch.where(parts > 1e-9, now[:, 0] / parts.clamp_min(1e-9), torch.inf)
        leaves = ratio.argmin(dim=1)
        each = torch.arange(len(active), device=values.device)
        column = now[each, :, leaves] / parts[each, leaves][:, None]
        parts[each, leaves] -= 1
        inverse[active] = now - column[:, :, None] * parts[:, None]
        basis[active, leaves] = enters
        found[active] = (inverse[active] @ values[active].gather(1, basis[active])[..., None]).squeeze(2)
    return found[:, 1:], found[:, 0]


@dataclass(frozen=True)
class _Pairs:
    """Pixels, each with a part of its box, in which the excess may be larger than what was found."""

    row: Tensor
    """Of a box and pixel."""
    at: Float[Tensor, "r d"]
    half: Float[Tensor, "r d"]
    rounding: Float[Tensor, " r"]
    """Of the parts whose ends these are: where the excess is all the same, rounding may be larger there."""

    def of(self, rows: Tensor) -> "_Pairs":
        return _Pairs(self.row[rows], self.at[rows], self.half[rows], self.rounding[rows])

    def __len__(self) -> int:
        return len(self.row)


class _Search:
    """Pixels of pictures under boxes of parameters: how far they fall below planes."""

    def __init__(self, pictures: Tensor, boxes: Boxes, unit: float) -> None:
        self.boxes, self.unit = boxes, unit
        self.channels, self.h, self.w = pictures.shape[1:]
        self.padded = pad(pictures, (BORDER,) * 4)
        self.steepest = torch.stack([
            self.padded.diff(dim=axis).abs().flatten(1).amax(1) for axis in (3, 2)
        ])  # fmt: skip
        self.largest = pictures.flatten(1).abs().amax(1)
        rows, columns = centred(self.h, self.w, pictures)
        self.x = columns.repeat(self.channels * self.h)
        self.y = rows.repeat_interleave(self.w).repeat(self.channels)
        self.toned = bool({5, 6} & set(boxes.axes))
        low, high = (whole(end, boxes.axes) for end in (boxes.centre - boxes.half, boxes.centre + boxes.half))
        self.smallest = 1 + low[:, 3]
        self.leaning = torch.maximum(low[:, 4].abs(), high[:, 4].abs())
        self.shift = torch.maximum(low[:, 1:3].abs(), high[:, 1:3].abs()).norm(dim=1)

    def excess(self, slope: Tensor, offset: Tensor, sign: Tensor, tolerance: Tensor) -> Tensor:
        """How far `slope . k + offset - sign pixel` rises above 0 over k in [-1, 1], at most.

        `slope` is (s, m, p, d): for each sign, box and pixel.
        Formula: at the middle of a part of half width e the excess is g, and in it at most g + sum_i max |G_i| e_i,
        G the interval gradient. A part that cannot be `tolerance` above the best g is left; where G_i has one sign,
        only that end of the part is looked at; others are halved along their largest |G_i| e_i.
        """
        shape, d = offset.shape, slope.shape[-1]
        sign = sign.repeat_interleave(offset[0].numel())
        slope, offset, tolerance = slope.reshape(-1, d), offset.flatten(), tolerance.flatten()
        best = torch.zeros_like(offset)  # never below 0: planes are only moved down
        done = torch.zeros_like(offset)
        each, none = torch.arange(len(offset), device=slope.device), torch.zeros_like(offset)
        pairs = _Pairs(each, torch.zeros_like(slope), torch.ones_like(slope), none)
        for number in range(ROUNDS):
            value, low, high, rounding = self.looked(pairs)
            rounding = torch.maximum(rounding, pairs.rounding)
            mine, side = slope[pairs.row], sign[pairs.row]
            here = (mine * pairs.at).sum(1) + offset[pairs.row] - side * value
            up = (side > 0)[:, None]
            low, high = mine - torch.where(up, high, -low), mine - torch.where(up, low, -high)
            rise = torch.maximum(low.abs(), high.abs()) * pairs.half
            best.scatter_reduce_(0, pairs.row, here, "amax")
            bound = here + rise.sum(1)
            over = (bound > best[pairs.row] + tolerance[pairs.row]) & (number + 1 < ROUNDS)
            over &= torch.bincount(pairs.row[over], minlength=len(offset))[pairs.row] <= LIVE
            done.scatter_reduce_(0, pairs.row[~over], (bound + rounding)[~over], "amax")
            if not bool(over.any()):
                break
            pairs = _children(pairs.of(over), low[over], high[over], rise[over], rounding[over])
        return (torch.maximum(best, done) + SLACK).reshape(shape)

    def looked(self, pairs: _Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each pair the value in the middle, ends of its gradient in the box's units, and what rounding may add."""
        p = len(self.x)
        box, pixel = pairs.row // p % len(self.boxes), pairs.row % p
        width = self.boxes.half[box]
        parameters = whole(self.boxes.centre[box] + width * pairs.at, self.boxes.axes)
        x, y = sources(parameters, self.x[pixel], self.y[pixel])
        moves, bends = self._moves(parameters, x, y, pixel), self._bends(box, pixel)
        extent = width * pairs.half
        moves = [  # middle and radius of the place's derivatives over the pair's part
            (across, along, sum((bend * extent[:, j] for j, bend in enumerate(row)), torch.zeros_like(x)))
            for (across, along), row in zip(moves, bends, strict=True)
        ]
        reach_x, reach_y = (
            sum(((move[axis].abs() + move[2] / 2) * extent[:, i] for i, move in enumerate(moves)),
                torch.full_like(x, PLACE * self.unit * max(self.h, self.w)))
            for axis in (0, 1)
        )  # fmt: skip
        value, (east, east_radius), (south, south_radius) = self._slopes(
            self.boxes.picture[box], pixel, x, y, reach_x, reach_y
        )
        ends = list[tuple[Tensor, Tensor]]()
        for across, along, radius in moves:
            middle = east * across + south * along
            more = east_radius * (across.abs() + radius) + south_radius * (along.abs() + radius)
            ends.append((middle, more + (east.abs() + south.abs()) * radius))
        steep = east.abs() + east_radius + south.abs() + south_radius
        largest = self.largest[self.boxes.picture[box]]
        most = torch.minimum(value.abs() + steep * (reach_x + reach_y), largest)
        rounding = PLACE * self.unit * max(self.h, self.w) * steep + VALUE * self.unit * most
        if self.toned:
            value, ends, rounding = self._toned(parameters, value, ends, extent, rounding)
        middles, radii = (torch.stack(part, dim=1) * width for part in zip(*ends, strict=True))
        return value, middles - radii, middles + radii, rounding

    def _moves(self, parameters: Tensor, x: Tensor, y: Tensor, pixel: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Derivatives of a pixel's source in every geometric axis."""
        angle, _, _, scale, shear = parameters[:, :5].unbind(1)
        cos, sin, size = (angle * TURN).cos(), (angle * TURN).sin(), 1 + scale
        straight = x + shear * y
        of = {
            0: (TURN * (-y - shear * straight), TURN * straight),
            1: ((shear * sin - cos) / size, -sin / size),
            2: ((shear * cos + sin) / size, -cos / size),
            3: (-x / size, -y / size),
            4: (-y, torch.zeros_like(y)),
        }
        return [of[axis] for axis in self.boxes.axes if axis < 5]

    def _bends(self, box: Tensor, pixel: Tensor) -> list[list[Tensor]]:
        """Upper bounds of the second derivatives of a pixel's source, either coordinate.

        Formula: |H S R (p - t)| <= (1 + |shear|) (|p| + |t|) / size, and likewise each derivative of its factors.
        """
        far = (self.x**2 + self.y**2).sqrt()[pixel] + self.shift[box]
        size, lean = self.smallest[box], 1 + self.leaning[box]

        def bend(pair: tuple[int, int]) -> Tensor:
            shifts, scales, shears = (sum(axis in of for axis in pair) for of in ((1, 2), (3,), (4,)))
            if shifts == 2 or shears == 2:
                return torch.zeros_like(far)
            found = (1.0, 1.0, 2.0)[scales] / size ** (1 + scales) * TURN ** pair.count(0)
            return found * (1.0 if shears else lean) * (1.0 if shifts else far)

        axes = [axis for axis in self.boxes.axes if axis < 5]
        return [[bend((i, j)) for j in axes] for i in axes]

    def _slopes(
        self, picture: Tensor, pixel: Tensor, x: Tensor, y: Tensor, reach_x: Tensor, reach_y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The bilinear value at (x, y), and middle and radius of its slopes to the right and down near it."""
        x, y = x + (self.w - 1) / 2, y + (self.h - 1) / 2
        first_x, first_y = (x - reach_x).floor(), (y - reach_y).floor()
        wide = (x + reach_x > first_x + WINDOW) | (y + reach_y > first_y + WINDOW)
        first_x = torch.where(wide, x.floor(), first_x).clamp(-BORDER, self.w)
        first_y = torch.where(wide, y.floor(), first_y).clamp(-BORDER, self.h)
        corner = ((picture * self.channels + pixel // (self.h * self.w)) * (self.h + 2 * BORDER)
                  + first_y.long() + BORDER) * (self.w + 2 * BORDER) + first_x.long() + BORDER  # fmt: skip
        near = torch.arange(WINDOW + 1, device=x.device)
        steps = near[:, None] * (self.w + 2 * BORDER) + near
        seen = self.padded.flatten()[steps[..., None] + corner]  # (rows, columns, r): pairs last, which is fastest
        x, y = x - first_x, y - first_y
        hat_x, hat_y = ((1 - (place - near[:, None]).abs()).clamp_min(0) for place in (x, y))
        value = (hat_y[:, None] * hat_x * seen).flatten(0, 1).sum(0)
        cells = near[:WINDOW, None].to(x)
        low_x, high_x = (end.clamp(0, WINDOW) - cells for end in (x - reach_x, x + reach_x))
        low_y, high_y = (end.clamp(0, WINDOW) - cells for end in (y - reach_y, y + reach_y))
        touched = ((low_x <= 1) & (high_x >= 0)) & ((low_y <= 1) & (high_y >= 0))[:, None]
        right, down = seen.diff(dim=1), seen.diff(dim=0)
        east = _joined(right[:-1], right[1:], low_y[:, None], high_y[:, None], touched)
        south = _joined(down[:, :-1], down[:, 1:], low_x, high_x, touched)
        east, south = (
            (torch.where(wide, 0, middle), torch.where(wide, self.steepest[axis][picture], radius))
            for axis, (middle, radius) in enumerate((east, south))
        )
        return value, east, south

    def _toned(
        self, parameters: Tensor, value: Tensor, ends: list[tuple[Tensor, Tensor]], extent: Tensor, rounding: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        """The same after contrast and brightness, with the clip to [0, 1]."""
        factor = 1 + parameters[:, 5]
        place = {axis: k for k, axis in enumerate(self.boxes.axes)}
        looser = extent[:, place[5]] if 5 in place else torch.zeros_like(factor)
        spread = sum(((m.abs() + r) * extent[:, k] for k, (m, r) in enumerate(ends)), torch.zeros_like(value))
        before = factor * value + parameters[:, 6]
        ends = [(factor * m, looser * m.abs() + (factor + looser) * r) for m, r in ends]
        ends += [(value, spread)] if 5 in place else []
        ends += [(torch.ones_like(value), torch.zeros_like(value))] if 6 in place else []
        around = sum(((m.abs() + r) * extent[:, k] for k, (m, r) in enumerate(ends)), torch.zeros_like(value))
        low, high = before - around, before + around
        inside, outside = (low > 0) & (high < 1), (high < 0) | (low > 1)
        clipped = list[tuple[Tensor, Tensor]]()
        for middle, radius in ends:  # of a clip that may act, anything between the slope and 0
            least, most = (middle - radius).clamp_max(0), (middle + radius).clamp_min(0)
            middle_, radius_ = (least + most) / 2, (most - least) / 2
            middle_, radius_ = torch.where(inside, middle, middle_), torch.where(inside, radius, radius_)
            clipped.append((torch.where(outside, 0, middle_), torch.where(outside, 0, radius_)))
        darker = parameters[:, 6].abs() + (extent[:, place[6]] if 6 in place else 0)
        more = VALUE * self.unit * ((factor + looser) * (value.abs() + spread) + darker)
        return before.clamp(0, 1), clipped, (factor + looser) * rounding + more


def _joined(first: Tensor, second: Tensor, low: Tensor, high: Tensor, touched: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and radius over all touched cells of a slope that goes from `first` to `second` across a cell."""
    turn = second - first
    one, other = first + turn * low.clamp(0, 1), first + turn * high.clamp(0, 1)
    least = torch.where(touched, torch.minimum(one, other), torch.inf).flatten(0, 1).amin(0)
    most = torch.where(touched, torch.maximum(one, other), -torch.inf).flatten(0, 1).amax(0)
    return (least + most) / 2, (most - least) / 2


def _children(pairs: _Pairs, low: Tensor, high: Tensor, rise: Tensor, rounding: Tensor) -> _Pairs:
    """What is to be looked at next: the highest end where the excess is monotone, the two halves of the rest."""
    rising, falling = low >= 0, high <= 0
    flat = rising | falling
    at = pairs.at + pairs.half * (rising.to(low) - (falling & ~rising).to(low))
    half = torch.where(flat, 0, pairs.half)
    rise = torch.where(flat, 0, rise)
    worth, axis = rise.max(dim=1)
    open_, each = worth > 0, torch.arange(len(pairs), device=low.device)
    half[each, axis] /= 2  # of a half width of 0 nothing changes
    other = at.clone()
    at[each, axis] -= half[each, axis]
    other[each, axis] += half[each, axis]
    rounding = torch.where(flat.any(1), rounding, pairs.rounding)
    return _Pairs(*(
        torch.cat([one, two[open_]])
        for one, two in ((pairs.row, pairs.row), (at, other), (half, half), (rounding, rounding))
    ))  # fmt: skip
