"""ACET: low confidence everywhere around noise, by adversarial training on it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.attacks import Ball, ascend, losses, shrunk
from caveat.data.outliers import Outliers, permuted_then_blurred
from caveat.evaluation import in_eval_mode
from caveat.objectives._ranges import at_least
from caveat.objectives.confidence import together
from caveat.types import Labels

__all__ = ["Acet"]


@dataclass(frozen=True)
class Acet:
    """As CEDA, with the noise moved within a ball to where the network is most confident.

    Costs `steps` forward and backward passes a step of training. Formula: mean CE(x) + weight mean max over
    |u - z| <= radius of max_k log p_k(u). The maximum is found by `attacks.ascend` with the network in evaluation mode,
    from a random start, the best point kept.

    If a network learns nothing at the full weight, train some epochs with a small one first, but few: once it is
    confident of all noise nearby, its confidence there has no slope and this term no effect (study
    relu-overconfidence).

    Raises
    ------
    OptionError
        If a number is out of range.

    Source: Hein, Andriushchenko and Bitterwolf, CVPR 2019 (arXiv 1812.05720), section 4; 0.3, 40 steps of radius / 40.
    """

    weight: int | float = 1.0
    radius: int | float = 0.3
    norm: int | float = math.inf
    steps: int = 40
    outliers: Outliers = permuted_then_blurred

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
        noise = self.outliers(inputs, generator)

        def sure(points: Tensor) -> Tensor:
            logits = model(points)
            return losses.confidence(logits, logits.argmax(dim=1))

        with in_eval_mode(model):
            ball = Ball(self.norm, self.radius, 0, 1)
            worst = ascend(sure, noise, ball, generator=generator, steps=self.steps, start=shrunk).inputs
        return together(model, inputs, labels, worst, self.weight)
