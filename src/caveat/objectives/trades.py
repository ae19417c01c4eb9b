"""TRADES: right on clean inputs, and the same answer all around them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.attacks import Ball, ascend, uniform
from caveat.evaluation import in_eval_mode
from caveat.objectives._ranges import at_least
from caveat.types import Labels

__all__ = ["Trades"]


@dataclass(frozen=True)
class Trades:
    """Cross-entropy plus `weight` times how far the answer can be moved within the ball.

    Trades accuracy on clean inputs for robustness by one number. Costs `steps` forward and backward passes a step of
    training. Formula: mean CE(x, y) + weight mean max over |d| <= radius of KL(p(x) || p(x + d)), within [0, 1]; weight
    0 is cross-entropy.

    Raises
    ------
    OptionError
        If a number is out of range.

    Source: Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019 (arXiv
    1901.08573), eq. 5; weight 6, for MNIST radius 0.3.
    """

    weight: int | float = 6.0
    radius: int | float = 0.3
    norm: int | float = math.inf
    steps: int = 10
    step: int | float | None = None

    def __post_init__(self) -> None:
        at_least("weight", self.weight, 0)
        at_least("steps", self.steps, 1)
        Ball(self.norm, self.radius, 0, 1)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise; inputs are in [0, 1]."""
        if not self.weight:
            return functional.cross_entropy(model(inputs), labels)
        ball = Ball(self.norm, self.radius, 0, 1)
        length = 2.5 * self.radius / self.steps if self.step is None else self.step
        with in_eval_mode(model):
            with torch.no_grad():
                clean = model(inputs).log_softmax(dim=1)

            def apart(points: Tensor) -> Tensor:
                return _divergence(clean, model(points).log_softmax(dim=1))

            worst = ascend(
                apart, inputs, ball, generator=generator, steps=self.steps, step=length, start=uniform, best=False
            ).inputs
        known, moved = model(torch.cat([inputs, worst])).split(len(inputs))
        robust = _divergence(known.log_softmax(dim=1), moved.log_softmax(dim=1)).mean()
        return functional.cross_entropy(known, labels) + self.weight * robust


def _divergence(logs: Tensor, others: Tensor) -> Tensor:
    """KL of each row's distribution from the other one."""
    return functional.kl_div(others, logs, reduction="none", log_target=True).sum(dim=1)
