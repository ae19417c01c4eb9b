"""Some of many: which of a set's samples, or of a sorted list's ranks, stand for all of them."""

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["evenly", "spread", "thinned"]


def evenly(count: int, most: int) -> Int[Tensor, " k"]:
    """Indices of at most `most` of `count` values in order, at equal distances, the first and the last among them.

    For ranks of what is sorted. Exact for any count: `linspace` in float32 skips and repeats beyond 2^24.

    >>> evenly(9, 3), evenly(2, 5)
    (tensor([0, 4, 8]), tensor([0, 1]))
    """
    if most >= count or most < 2:
        return torch.arange(min(count, most))
    return torch.arange(most) * (count - 1) // (most - 1)


def spread(count: int, most: int) -> Int[Tensor, " k"]:
    """Indices of at most `most` of a set's `count` samples, one of each of as many equal stretches: always the same.

    Where in its stretch a sample is taken changes from one to the next by the golden ratio: a fixed step would meet
    only some of the classes of a set in which they take turns.

    >>> spread(9, 3), spread(2, 5)
    (tensor([0, 4, 6]), tensor([0, 1]))
    """
    if most >= count:
        return torch.arange(count)
    stretch = torch.arange(most, dtype=torch.float64)
    chosen = (stretch + stretch * ((5**0.5 - 1) / 2) % 1) * (count / most)
    return chosen.long().clamp_max(count - 1)


def thinned(samples: Tensor, most: int) -> Tensor:
    """At most `most` of a set's samples, by `spread`; the tensor itself if it has no more."""
    return samples if len(samples) <= most else samples[spread(len(samples), most).to(samples.device)]
