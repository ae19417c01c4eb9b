"""A curve with fewer vertices that looks the same."""

import heapq
import math

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from caveat.metrics import _check

__all__ = ["simplify"]


def simplify(
    x: Float64[Tensor, " m"], y: Float64[Tensor, " m"], *, points: int
) -> tuple[Float64[Tensor, " p"], Float64[Tensor, " p"]]:
    """At most `points` vertices of a polyline: again and again the vertex farthest from the chord below it is added.

    D. Douglas, T. Peucker (1973), worst segment first.
    """
    _check.at_least("points", points, 2)
    if x.numel() <= points:
        return x, y
    x, y = x.cpu(), y.cpu()
    across, up = x.numpy(), y.numpy()  # a thousand looks at a few numbers each, where a tensor's cost more than they do
    kept = {0, x.numel() - 1}
    heap = [_farthest(across, up, 0, x.numel() - 1)]
    while heap and len(kept) < points:
        distance, start, vertex, end = heapq.heappop(heap)
        if distance == 0:
            break
        kept.add(vertex)
        for first, last in ((start, vertex), (vertex, end)):
            if last - first > 1:
                heapq.heappush(heap, _farthest(across, up, first, last))
    index = torch.tensor(sorted(kept))
    return x[index], y[index]


def _farthest(x: np.ndarray, y: np.ndarray, start: int, end: int) -> tuple[float, int, int, int]:
    """(−distance, start, vertex, end) of the vertex between `start` and `end` that is farthest from their chord."""
    inside_x, inside_y = x[start + 1 : end] - x[start], y[start + 1 : end] - y[start]
    across, up = float(x[end] - x[start]), float(y[end] - y[start])
    length = math.hypot(across, up)
    apart = abs(inside_x * up - inside_y * across) / length if length > 0 else np.hypot(inside_x, inside_y)
    vertex = int(apart.argmax())
    return -float(apart[vertex]), start, start + 1 + vertex, end
