"""Adversarial training: the loss at the worst input near each one."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.attacks import Ball, ascend, losses, uniform
from caveat.evaluation import in_eval_mode
from caveat.objectives._ranges import at_least, fraction
from caveat.types import Labels

__all__ = ["Adversarial"]


@dataclass(frozen=True)
class Adversarial:
    """Cross-entropy at the inputs that PGD finds, and `clean` of it at the inputs themselves.

    The defence that holds up best against attacks of the same norm and radius. Costs `steps` forward and backward
    passes a step of training; with one step of 1.25 radius from a random start it is fast FGSM training. The inner
    attack sees the network in evaluation mode. Formula: (1 - clean) mean max over |d| <= radius of CE(x + d, y) + clean
    mean CE(x, y), within [0, 1].

    Raises
    ------
    OptionError
        If a number is out of range.

    Source: Madry et al., ICLR 2018 (arXiv 1706.06083), eq. 2.1, clean 0; Wong, Rice and Kolter, Fast is better than
    free, ICLR 2020 (arXiv 2001.03994); with clean inputs: Goodfellow et al., ICLR 2015 (arXiv 1412.6572).
    """

    radius: int | float = 0.3
    norm: int | float = math.inf
    steps: int = 10
    step: int | float | None = None
    clean: int | float = 0.0

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        fraction("clean", self.clean)
        Ball(self.norm, self.radius, 0, 1)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise; inputs are in [0, 1]."""
        if not self.radius or self.clean == 1:
            return functional.cross_entropy(model(inputs), labels)
        ball = Ball(self.norm, self.radius, 0, 1)
        length = 2.5 * self.radius / self.steps if self.step is None else self.step

        def harm(points: Tensor) -> Tensor:
            return losses.log_odds(model(points), labels)

        with in_eval_mode(model):
            worst = ascend(harm, inputs, ball, generator=generator, steps=self.steps, step=length, start=uniform).inputs
        if not self.clean:
            return functional.cross_entropy(model(worst), labels)
        both = model(torch.cat([worst, inputs]))
        loss = functional.cross_entropy(both, labels.repeat(2), reduction="none")
        return (1 - self.clean) * loss[: len(inputs)].mean() + self.clean * loss[len(inputs) :].mean()
