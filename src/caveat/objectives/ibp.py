"""Interval bound propagation: right over whole balls, by a bound that training can lower."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.objectives._intervals import Boxed, boxed, initialised, layers_of, ramp, worst_logits
from caveat.objectives._ranges import fraction
from caveat.types import Labels

__all__ = ["Ibp"]


@dataclass(frozen=True)
class Ibp:
    """Cross-entropy, and that of the worst logits that intervals allow in a ball of the maximum norm, within [0, 1].

    What it has learnt can be certified by the cheapest of bounds (`bounds`, method `interval`). `caveat train` raises
    `radius` and `weight` from 0 over the first fifth of the training (five epochs at least, half of them at most), and
    first draws the weights anew (`initialise`; not those of --weights) so that boxes do not grow from layer to layer:
    else many networks do not begin to learn. Costs about three times plain training. The model is `nn.Sequential` of
    layers with a rule, a linear one last.

    Formula: (1 - weight) CE(x, y) + weight CE(z(x), y), z_j = max over the interval before the last layer of f_j - f_y.

    Raises
    ------
    OptionError
        If `weight` is not in [0, 1], or `radius` not in [0, 1).

    Source: S. Gowal et al., On the effectiveness of interval bound propagation for training verifiably robust models,
    2018 (arXiv 1810.12715), equations 6 to 12; the last layer merged as in section 3; for MNIST the whole radius from
    step 12,000 of 60,000 on. First weights: Z. Shi et al., NeurIPS 2021 (arXiv 2103.17268).
    """

    radius: int | float = 0.1
    weight: int | float = 0.5
    initialise: bool = True

    def __post_init__(self) -> None:
        fraction("weight", self.weight)
        fraction("radius", self.radius, below=True)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise; inputs are in [0, 1]. Nothing is drawn from the generator.

        Raises
        ------
        ModelError
            If the model is no `nn.Sequential` with a linear layer last, or a layer has no rule.
        DataError
            If inputs are outside of [0, 1].
        """
        del generator
        layers, head = layers_of(model)
        value = Boxed.around(inputs, self.radius)
        for layer in layers:
            value = boxed(layer, value)
        clean = functional.cross_entropy(head(value.clean), labels)
        if not self.weight:
            return clean
        certified = functional.cross_entropy(worst_logits(head, value, labels), labels)
        return (1 - self.weight) * clean + self.weight * certified

    def begin(self, model: nn.Module, generator: torch.Generator) -> int:
        """Draw the weights of a network that is not trained yet; of how many layers. `caveat train` does."""
        return initialised(model, generator) if self.initialise else 0

    def phases(self, epochs: int) -> list[tuple["Ibp", int]]:
        """What to train by in which epochs: weight and radius rise over the first fifth, an epoch at a time."""
        rise = ramp(epochs)
        rising = [
            (replace(self, radius=self.radius * k / (rise + 1), weight=self.weight * k / (rise + 1)), 1)
            for k in range(1, rise + 1)
        ]
        return [*rising, (self, epochs - rise)]
