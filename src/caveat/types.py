"""Shapes as types.

Axes: `n` samples, `c` classes, `d` features, `s` draws, `h w` pixels (`*pixels` where a method works with and
without them). They are checked at run time in tests only (jaxtyping and beartype) and cost nothing in production.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from caveat.batches import Inputs

__all__ = [
    "Batches",
    "Call",
    "Drawing",
    "Draws",
    "Encoding",
    "Features",
    "Head",
    "Labels",
    "Logits",
    "LogitsMap",
    "Look",
    "Mask",
    "Probe",
    "Probs",
    "Reconstructing",
    "Score",
    "ScoreFromFeatures",
    "ScoreFromLogits",
    "ScoreMap",
]

Logits: TypeAlias = Float[Tensor, "n c"]
Probs: TypeAlias = Float[Tensor, "n c"]
Features: TypeAlias = Float[Tensor, "n d"]
Labels: TypeAlias = Int[Tensor, " n"]
Score: TypeAlias = Float[Tensor, " n"]
"""Higher = less trustworthy, without exception."""
Mask: TypeAlias = Bool[Tensor, " n"]
LogitsMap: TypeAlias = Float[Tensor, "n c *pixels"]
Draws: TypeAlias = Float[Tensor, "s n c *pixels"]
"""Logits of ensemble members or posterior samples for the same inputs."""
ScoreMap: TypeAlias = Float[Tensor, "n *pixels"]

Head: TypeAlias = tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]
"""Weight and bias of the last linear layer: logits = features @ weight.T + bias."""

ScoreFromLogits: TypeAlias = Callable[[LogitsMap], ScoreMap]
ScoreFromFeatures: TypeAlias = Callable[[Features], Score]


@runtime_checkable
class Batches(Protocol):
    """Anything that can be gone through again and again, giving batches of a form of `batches.pair` in one order."""

    def __iter__(self) -> Iterator[Any]: ...


@runtime_checkable
class Drawing(Protocol):
    """An ensemble or another posterior as one model: it gives the logits of each sample, too."""

    def draws(self, inputs: Any) -> Draws:
        """The logits of every network; the model's own are the log of their mean probabilities."""
        ...


@runtime_checkable
class Encoding(Protocol):
    """A model of texts: it makes its own inputs of them, so that tokens and weights can't be of two models.

    If it has `classes`, a tuple of names, labels that are names are numbered as they stand there.
    """

    def encode(self, texts: list[str]) -> Inputs | Mapping[str, Tensor]:
        """What its forward takes for these texts: a tensor of tokens `(n, t)`, or several tensors."""
        ...


@runtime_checkable
class Reconstructing(Protocol):
    """A model that also has an autoencoder."""

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """The inputs as the autoencoder gives them back, of the same shape."""
        ...


@dataclass(frozen=True)
class Call:
    """One call of a layer within a forward pass; a shared layer is called several times."""

    inputs: tuple[Any, ...]
    """Its positional arguments."""
    output: Any
    edge: GradientEdge | None
    """Where gradients with respect to the output arrive; right even if a later layer changes the output in place.
    None outside of a graph."""


@dataclass(frozen=True)
class Look:
    """One batch in the middle of its forward pass: what a probe may use."""

    model: nn.Module
    inputs: Any
    """A tensor, or the `batches.Several` of a network of several inputs."""
    logits: Tensor
    activations: Mapping[str, Tensor]
    """Outputs of the layers the probe named; part of the graph if it asked for one."""
    calls: Mapping[str, Sequence[Call]] = field(default_factory=dict)
    """Every call of those layers, in order."""


@runtime_checkable
class Probe(Protocol):
    """Reduces a look to a few numbers per sample, in the one pass that all scores share."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers whose outputs it needs."""
        ...

    @property
    def graph(self) -> bool:
        """Whether it takes gradients with respect to inputs or activations."""
        ...

    def __call__(self, look: Look) -> Float[Tensor, "n k"]:
        """The numbers, detached."""
        ...
