"""The losses of the report on OOD digits: wrong classes pushed down, and wrong answers made even."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.objectives._ranges import at_least
from caveat.types import Labels, Logits

__all__ = ["ReversedFocal", "of_logits", "spread_of_wrong"]


@dataclass(frozen=True)
class ReversedFocal:
    """Cross-entropy, plus `k` times a penalty on confident mistakes, plus `spread` times the spread of wrong answers.

    Formula: mean [-log p_y - k sum_{i != y} p_i log(1 - p_i) + spread 1[y != argmax p] std_i(p)]. All three are
    at least 0; k = spread = 0 is cross-entropy. The report prints the second term and the third with the opposite
    sign, which would make wrong answers confident; its words say what is meant.

    Raises
    ------
    OptionError
        If a weight is negative.

    Source: Y. Song, OOD in MNIST (report, Yonsei), equations 3 and 4, signs mended.
    """

    k: int | float = 1.0
    spread: int | float = 1.0

    def __post_init__(self) -> None:
        at_least("k", self.k, 0)
        at_least("spread", self.spread, 0)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise."""
        del generator
        return of_logits(model(inputs), labels, k=self.k, spread=self.spread)


def of_logits(logits: Logits, labels: Labels, *, k: int | float, spread: int | float) -> Float[Tensor, ""]:
    """The same from logits."""
    loss = functional.cross_entropy(logits, labels)
    if k:
        loss = loss + k * _sure_of_wrong(logits, labels).mean()
    if spread:
        loss = loss + spread * spread_of_wrong(logits, labels).mean()
    return loss


def _sure_of_wrong(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """-sum over wrong classes of p log(1 - p), with log(1 - p) from the others' logits: exact where p is near 1."""
    logs = logits.log_softmax(dim=1)
    classes = logits.shape[1]
    diagonal = torch.eye(classes, dtype=torch.bool, device=logits.device)
    rest = logs.unsqueeze(1).masked_fill(diagonal, -torch.inf).logsumexp(dim=2)  # log(1 - p_i) for every class
    terms = -logs.exp() * rest.clamp_min(torch.finfo(logs.dtype).min)
    return terms.scatter(1, labels.unsqueeze(1), 0.0).sum(dim=1)


def spread_of_wrong(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """Standard deviation of the probabilities of each wrong answer; 0 for right ones."""
    probs = logits.softmax(dim=1)
    wrong = logits.argmax(dim=1) != labels
    # kept off 0: the root has no slope at a uniform answer
    spread = (probs.var(dim=1, unbiased=False) + torch.finfo(probs.dtype).eps ** 2).sqrt()
    return torch.where(wrong, spread, torch.zeros_like(spread))
