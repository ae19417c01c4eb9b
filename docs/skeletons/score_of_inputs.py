"""Contrast: how far a picture's contrast is from that of in-distribution pictures. A score of a kind of its own."""

from dataclasses import dataclass

import torch  # noqa: F401  # for the doctest
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import check
from caveat.types import Labels, Look, Score

__all__ = ["Contrast", "ContrastProbe", "fit", "probe"]


@dataclass(frozen=True)
class ContrastProbe:
    """A probe: the standard deviation of each input's values."""

    layers: tuple[str, ...] = ()
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n 1"]:
        """One pass over the inputs; the network is not asked."""
        return look.inputs.flatten(1).std(dim=1, keepdim=True)


def probe(inputs: Tensor) -> ContrastProbe:
    """The probe; a few `inputs` are there for probes that depend on their shape."""
    del inputs
    return ContrastProbe()


@dataclass(frozen=True)
class Contrast:
    """A fitted score: distance to the mean contrast, in [0, inf)."""

    mean: Float[Tensor, ""]

    def __call__(self, probed: Float[Tensor, "n 1"]) -> Score:
        """One difference a sample."""
        return (probed[:, 0] - self.mean).abs()


def fit(probed: Float[Tensor, "n 1"], labels: Labels) -> Contrast:
    """Fit the mean contrast of in-distribution data.

    For cameras that are dirty or badly lit. Costs a pass over the inputs. Formula: |sd(x) - mean sd|.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a number is NaN or infinite.

    Source: author, title, venue (arXiv number), equation.

    >>> score = fit(torch.tensor([[0.1], [0.3]]), torch.tensor([0, 1]))
    >>> round(score(torch.tensor([[0.5]])).item(), 6)
    0.3
    """
    check(probed, labels)
    return Contrast(probed.double().mean().to(probed.dtype))
