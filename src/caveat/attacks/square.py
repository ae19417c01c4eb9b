"""Square: random squares of the picture changed in turn, and kept where they do harm."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.attacks.ascent import above
from caveat.attacks.ball import Ball
from caveat.attacks.losses import Loss, margin
from caveat.attacks.network import Harm, checked
from caveat.attacks.noise import Noise, drawn
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["square"]

HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which squares have half of the area."""


def square(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: Loss = margin,
    queries: int = 1000,
    area: int | float = 0.8,
) -> Float[Tensor, "n ..."]:
    """Random search with squares: it asks the network for its values alone, so that no masked gradient stops it.

    Costs up to `queries` forward passes and no backward pass; a sample whose answer has changed is asked no more. The
    last two axes are height and width, one axis is a strip; all before them change in the same place.
    Formula: x <- x' if loss(x') > loss(x); in norm inf x' has x0 + radius or x0 - radius in a random square, a sign for
    each channel, starting from stripes. In norms 2 and 1 it has zero change in one square and a bump in another, and
    what this frees of the radius goes into the bump.

    Parameters
    ----------
    area
        Share of the picture that the first squares take.

    Raises
    ------
    ModelError, DataError
        As `pgd`.
    OptionError
        If a number is out of range.

    Source: Andriushchenko, Croce, Flammarion and Hein, Square Attack, ECCV 2020 (arXiv 1912.00049), algorithms 1 to 3;
    the bump of norms 2 and 1 is flat here.
    """
    if queries < 0 or not 0 < area <= 1:
        raise OptionError(f"queries, area: expected at least 0 and a share in (0, 1], got {queries} and {area}")
    labels = checked(model, inputs, labels)
    ball.check(inputs)
    noise, centres = drawn(len(inputs), generator, inputs.device), inputs.detach()
    found, rows = centres.clone(), torch.arange(len(inputs), device=inputs.device)
    worth: Tensor | None = None
    for query in range(queries + 1 if len(inputs) and ball.radius else 0):
        own = centres[rows]
        tried = _tried(ball, own, found[rows], noise.of(rows), query, _share(area, query, queries))
        function = Harm(model, labels[rows], loss)
        with torch.no_grad():
            values = function(tried)
        ended = function.ended()
        worse = torch.ones_like(ended) if worth is None else above(values, worth) | ended
        found[rows[worse]] = tried[worse]
        worth = (values if worth is None else torch.where(worse, values, worth))[~ended]
        rows = rows[~ended]
        if not len(rows):
            break
    return found


def _share(area: float, query: int, queries: int) -> float:
    return area / 2 ** sum(query > share * queries for share in HALVED)


def _tried(ball: Ball, centres: Tensor, now: Tensor, noise: Noise, query: int, share: float) -> Tensor:
    """The next point to ask for: first the inputs themselves, then stripes, then squares."""
    if not query:
        return centres.clone()
    pictures = _as_pictures(centres)
    n, c, h, w = pictures.shape
    numbers = noise.uniform(4 + c * w, stream=query)
    if query == 1:
        signs = (numbers[:, 4 : 4 + c * w] < 0.5).reshape(n, c, 1, w).to(centres.dtype) * 2 - 1
        return _within(ball, centres, signs.expand(n, c, h, w).reshape(centres.shape))
    signs = (numbers[:, 4 : 4 + c] < 0.5).reshape(n, c, 1, 1).to(centres.dtype) * 2 - 1
    change = _as_pictures(now - centres)
    here = _window(numbers[:, :2], h, w, share)
    if ball.norm == math.inf:
        return _within(ball, centres, torch.where(here, signs * ball.radius, change).reshape(centres.shape))
    there = _window(numbers[:, 2:4], h, w, share) & ~here
    wide = torch.promote_types(centres.dtype, torch.float32)  # squares of small numbers are 0 in half precision
    change, signs = change.to(wide), signs.to(wide)
    kept = torch.where(there, 0, change)
    bump = torch.where(here, signs, 0)
    size = torch.linalg.vector_norm((here * change).flatten(1), ball.norm, dim=1).reshape(n, 1, 1, 1)
    old = torch.where(size > 0, here * change / size.clamp_min(torch.finfo(size.dtype).tiny), 0)
    unit = old + bump / torch.linalg.vector_norm(bump.flatten(1), ball.norm, dim=1).reshape(n, 1, 1, 1)
    unit = unit / torch.linalg.vector_norm(unit.flatten(1), ball.norm, dim=1).reshape(n, 1, 1, 1).clamp_min(1e-12)
    rest = torch.linalg.vector_norm(torch.where(here, 0, kept).flatten(1), ball.norm, dim=1).reshape(n, 1, 1, 1)
    free = (ball.radius**ball.norm - rest**ball.norm).clamp_min(0) ** (1 / ball.norm)
    moved = torch.where(here, free * unit, kept).reshape(centres.shape).to(centres.dtype)
    return ball.project(centres + moved, centres)


def _within(ball: Ball, centres: Tensor, change: Tensor) -> Tensor:
    """As far that way as the ball goes."""
    return ball.furthest(centres, change)


def _as_pictures(points: Tensor) -> Tensor:
    """(n, channels, height, width)."""
    if points.ndim == 2:
        return points[:, None, None]
    if points.ndim == 3:
        return points[:, :, None]
    return points.reshape(len(points), -1, *points.shape[-2:])


def _window(places: Tensor, h: int, w: int, share: float) -> Tensor:
    """A square with that share of the area, at a place in it for each sample; True inside."""
    side = math.sqrt(share * h * w)
    tall = max(1, min(h, round(side)))
    wide = max(1, min(w, round(share * w) if h == 1 else round(side)))
    top, left = ((places * torch.tensor([h - tall + 1, w - wide + 1], device=places.device)).long()).T
    down, right = torch.arange(h, device=places.device), torch.arange(w, device=places.device)
    inside = (down >= top[:, None]) & (down < top[:, None] + tall)
    return (inside[:, :, None] & ((right >= left[:, None]) & (right < left[:, None] + wide))[:, None])[:, None]
