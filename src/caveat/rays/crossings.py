"""Where, on an affine piece of a ray, the confidence passes a threshold or the answer changes: solved, not sampled.

On a piece every logit is p alpha + q, so the log-odds of class k, M_k = -logsumexp over the others of their lead, is
concave in alpha: it passes a level upwards at most once and downwards at most once.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["class_lost", "confidence_lost", "confidence_reached", "log_odds"]

DOUBLINGS = 1100  # beyond the largest float64
BISECTIONS = 200
CELLS = 10**7  # of (n, c, c) held at a time


def log_odds(slopes: Tensor, offsets: Tensor, at: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """M_k at a finite alpha, and its derivative, for leads `(n, c - 1)` of the others over class k."""
    values = slopes * at[:, None] + offsets
    return -values.logsumexp(1), -(values.softmax(1) * slopes).sum(1)


def confidence_reached(
    slopes: Float[Tensor, "n c"],
    offsets: Float[Tensor, "n c"],
    start: Float[Tensor, " n"],
    end: Float[Tensor, " n"],
    threshold: float,
) -> Float[Tensor, " n"]:
    """The smallest alpha of [start, end] at which the largest probability is at least the threshold; inf if none is.

    `end` may be inf. Any class may be the one; the threshold lies between a half and 1.
    """
    level, found = _level(threshold), torch.full_like(start, math.inf)
    step = max(1, CELLS // slopes.shape[1] ** 2)
    for first in range(0, len(start), step):
        part = slice(first, first + step)
        found[part] = _reached(slopes[part], offsets[part], start[part], end[part], level)
    return found


def _reached(slopes: Tensor, offsets: Tensor, start: Tensor, end: Tensor, level: float) -> Tensor:
    n, c = slopes.shape
    lead_p, lead_q = _leads(slopes), _leads(offsets)  # (n * c, c - 1)
    start, end = start.repeat_interleave(c), end.repeat_interleave(c)
    value, rise = log_odds(lead_p, lead_q, start)
    found = torch.where(value >= level, start, math.inf)
    # concave: where it falls at the start it falls for good; and a tangent bounds it
    ceiling = torch.where(torch.isinf(end), math.inf, value + rise * (end - start).nan_to_num(posinf=0.0))
    rows = ((value < level) & (rise > 0) & (ceiling >= level)).nonzero().squeeze(1)
    if len(rows):
        p, q, low = lead_p[rows], lead_q[rows], start[rows]
        high = _top(p, q, low, end[rows], level)
        reaches = log_odds(p, q, high)[0] >= level
        found[rows] = torch.where(reaches, _passed(p, q, low, high, level), math.inf)
    return found.reshape(n, c).amin(1)


def confidence_lost(
    slopes: Float[Tensor, "n c"],
    offsets: Float[Tensor, "n c"],
    start: Float[Tensor, " n"],
    end: Float[Tensor, " n"],
    threshold: float,
) -> Float[Tensor, " n"]:
    """The end of the last stretch of [start, end] with less confidence than the threshold; -inf if there is none."""
    level = _level(threshold)
    beyond = _beyond(slopes, offsets, start, end)
    top = (slopes * beyond[:, None] + offsets).argmax(1)
    p, q = _lead_of(slopes, top), _lead_of(offsets, top)
    finite = torch.where(torch.isinf(end), _until(p, q, start, level), end)
    below_at_end = log_odds(p, q, finite)[0] < level
    below_at_start = log_odds(p, q, start)[0] < level
    passed = _passed(p, q, start, finite, level)
    return torch.where(below_at_end, end, torch.where(below_at_start, passed, -math.inf))


def class_lost(
    slopes: Float[Tensor, "n c"],
    offsets: Float[Tensor, "n c"],
    start: Float[Tensor, " n"],
    end: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """The end of the last stretch of [start, end] where another class is predicted; -inf if there is none."""
    p, q = _lead_of(slopes, classes), _lead_of(offsets, classes)
    finite = torch.where(torch.isinf(end), start, end)
    rounding = 1e-12 * (slopes.abs().amax(1) * finite + offsets.abs().amax(1))
    at_end = torch.where(
        torch.isinf(end)[:, None], torch.where(p == 0, q, p * math.inf), p * finite[:, None] + q - rounding[:, None]
    )
    lost_at_end = (at_end > 0).any(1)
    crossing = torch.where(p * start[:, None] + q > 0, -q / p, -math.inf)  # ahead at the start, so p < 0
    return torch.where(lost_at_end, end, torch.minimum(crossing.amax(1), end))


def _level(threshold: float) -> float:
    return math.log(threshold) - math.log1p(-threshold)


def _leads(values: Tensor) -> Tensor:
    """For every class the lead of each other one: (n * c, c - 1)."""
    n, c = values.shape
    others = ~torch.eye(c, dtype=torch.bool, device=values.device)
    return (values[:, None, :] - values[:, :, None])[:, others].reshape(n * c, c - 1)


def _lead_of(values: Tensor, classes: Tensor) -> Tensor:
    """The same for one class of each: (n, c - 1)."""
    n, c = values.shape
    others = torch.arange(c, device=values.device) != classes[:, None]
    return (values - values.gather(1, classes[:, None]))[others].reshape(n, c - 1)


def _beyond(slopes: Tensor, offsets: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """A finite alpha at which the piece's last class leads: its end, or past every crossing."""
    order = (slopes - slopes.amax(1, keepdim=True)) == 0
    leading = offsets.masked_fill(~order, -math.inf).argmax(1)
    p, q = _lead_of(slopes, leading), _lead_of(offsets, leading)
    crossings = torch.where(p < 0, -q / p, -math.inf).amax(1)
    return torch.where(torch.isinf(end), torch.maximum(crossings, start) * 2 + 1, end)


def _top(p: Tensor, q: Tensor, low: Tensor, end: Tensor, level: float) -> Tensor:
    """Where M is largest in [low, end], or has passed the level: the derivative falls, so it is bisected."""
    high = torch.where(torch.isinf(end), low.clamp_min(1.0), end)
    growing = torch.isinf(end)
    for _ in range(DOUBLINGS):
        value, rise = log_odds(p, q, high)
        growing = growing & (rise > 0) & (value < level) & (high < 1e300)
        if not bool(growing.any()):
            break
        high = torch.where(growing, 2 * high, high)
    value, rise = log_odds(p, q, high)
    falls = (rise < 0) & (value < level)
    left, right = low, high
    for _ in range(BISECTIONS if bool(falls.any()) else 0):
        middle = (left + right) / 2
        if not bool(((middle > left) & (middle < right)).any()):
            break
        up = log_odds(p, q, middle)[1] > 0
        left, right = torch.where(up, middle, left), torch.where(up, right, middle)
    return torch.where(falls, left, high)


def _until(p: Tensor, q: Tensor, start: Tensor, level: float) -> Tensor:
    """A finite alpha from which M stays at the level or above if it ever does."""
    high = start.clamp_min(1.0)
    for _ in range(DOUBLINGS):
        value, rise = log_odds(p, q, high)
        growing = ((value < level) | (rise < 0)) & (high < 1e300)
        if not bool(growing.any()):
            break
        high = torch.where(growing, 2 * high, high)
    return high


def _passed(p: Tensor, q: Tensor, low: Tensor, high: Tensor, level: float) -> Tensor:
    """Where M passes the level upwards between a point below it and one above."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if not bool(((middle > low) & (middle < high)).any()):
            break
        above = log_odds(p, q, middle)[0] >= level
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high
