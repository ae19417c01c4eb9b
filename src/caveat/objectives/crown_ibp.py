"""CROWN-IBP: certified training by bounds that are tight at first and fast to train in the end."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.objectives._backward import worst_by_lines
from caveat.objectives._intervals import Boxed, boxed, initialised, layers_of, ramp, worst_logits
from caveat.objectives._ranges import fraction
from caveat.types import Labels

__all__ = ["CrownIbp"]


@dataclass(frozen=True)
class CrownIbp:
    """As IBP, with worst logits that are partly those of linear bounds, carried back once from logits to inputs.

    Intervals alone are so loose at the beginning that a training may not start, or ends at a lower accuracy; these are
    tighter there. `share` of the margin's bound is theirs, the rest that of intervals: `caveat train` lets it fall to
    `last` over the first fifth of the training (as Ibp), while radius and weight rise. What has been learnt is
    certified by `bounds` (method `interval` after `last` 0). Costs of a network of c classes about 3 + c times plain
    training while the share is above 0. The model is `nn.Sequential` of layers with a rule, a linear one last.

    Formula: (1 - weight) CE(x, y) + weight CE(z, y), z = share z_lines + (1 - share) z_intervals, z_j >= f_j - f_y
    everywhere in the ball of the maximum norm, within [0, 1].

    Raises
    ------
    OptionError
        If `weight`, `share` or `last` are not in [0, 1], or `radius` not in [0, 1).

    Source: H. Zhang et al., Towards stable and efficient training of verifiably robust neural networks, ICLR 2020
    (arXiv 1906.06316), equations 9 to 11; last 0 as for its best figures on MNIST.
    """

    radius: int | float = 0.1
    weight: int | float = 0.5
    share: int | float = 1.0
    last: int | float = 0.0
    initialise: bool = True

    def __post_init__(self) -> None:
        fraction("weight", self.weight)
        fraction("share", self.share)
        fraction("last", self.last)
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
        values = [Boxed.around(inputs, self.radius)]
        for layer in layers:
            values.append(boxed(layer, values[-1]))
        clean = functional.cross_entropy(head(values[-1].clean), labels)
        if not self.weight:
            return clean
        worst = worst_logits(head, values[-1], labels)
        if self.share:
            worst = self.share * worst_by_lines(layers, head, values, labels) + (1 - self.share) * worst
        return (1 - self.weight) * clean + self.weight * functional.cross_entropy(worst, labels)

    def begin(self, model: nn.Module, generator: torch.Generator) -> int:
        """Draw the weights of a network that is not trained yet; of how many layers. `caveat train` does."""
        return initialised(model, generator) if self.initialise else 0

    def phases(self, epochs: int) -> list[tuple["CrownIbp", int]]:
        """What to train by in which epochs: over the first fifth weight and radius rise and the share falls."""
        rise = ramp(epochs)
        parts = [k / (rise + 1) for k in range(1, rise + 1)]
        rising = [
            (
                replace(
                    self, radius=self.radius * part, weight=self.weight * part,
                    share=self.share + (self.last - self.share) * part,
                ),
                1,
            )
            for part in parts
        ]  # fmt: skip
        return [*rising, (replace(self, share=self.last), epochs - rise)]
