"""Shapes as types.

Axes: `n` samples, `c` classes, `d` features, `s` draws, `h w` pixels (`*pixels` where a method works with and
without them). They are checked at run time in tests only (jaxtyping and beartype) and cost nothing in production.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Batches", "Features", "Head", "Labels", "Logits", "LogitsMap", "Mask", "Probs", "Score", "ScoreMap"]

Logits: TypeAlias = Float[Tensor, "n c"]
Probs: TypeAlias = Float[Tensor, "n c"]
Features: TypeAlias = Float[Tensor, "n d"]
Labels: TypeAlias = Int[Tensor, " n"]
Score: TypeAlias = Float[Tensor, " n"]
"""Higher = less trustworthy, without exception."""
Mask: TypeAlias = Bool[Tensor, " n"]
LogitsMap: TypeAlias = Float[Tensor, "n c *pixels"]
ScoreMap: TypeAlias = Float[Tensor, "n *pixels"]

Head: TypeAlias = tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]
"""Weight and bias of the last linear layer: logits = features @ weight.T + bias."""

ScoreFromLogits: TypeAlias = Callable[[LogitsMap], ScoreMap]
ScoreFromFeatures: TypeAlias = Callable[[Features], Score]


@runtime_checkable
class Batches(Protocol):
    """Anything that can be gone through again and again, giving `(inputs (n, ...), labels (n,))` in the same order."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
