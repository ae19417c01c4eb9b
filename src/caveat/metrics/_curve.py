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
    kept, heap, spans = {0, x.numel() - 1}, list[tuple[float, int, int, int]](), [(0, x.numel() - 1)]
    while len(kept) < points:
        for first, last in spans:
            inside = slice(first + 1, last)
            wide, high = float(across[last] - across[first]), float(up[last] - up[first])
            right, above = across[inside] - across[first], up[inside] - up[first]
            length = math.hypot(wide, high)
            apart = abs(right * high - above * wide) / length if length > 0 else np.hypot(right, above)
            farthest = int(apart.argmax())
            heapq.heappush(heap, (-float(apart[farthest]), first, first + 1 + farthest, last))
        if not heap or heap[0][0] == 0:
            break
        _, start, vertex, end = heapq.heappop(heap)
        kept.add(vertex)
        spans = [(first, last) for first, last in ((start, vertex), (vertex, end)) if last - first > 1]
    index = torch.tensor(sorted(kept))
    return x[index], y[index]
