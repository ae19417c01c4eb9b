"""GOOD: low confidence in whole balls around OOD inputs, by a bound that training can lower."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.data.outliers import Outliers, uniform_like
from caveat.objectives._intervals import Boxed, boxed, differences, layers_of
from caveat.objectives._ranges import at_least, fraction
from caveat.types import Labels

__all__ = ["Good"]


@dataclass(frozen=True)
class Good:
    """Cross-entropy, and beside it how far apart logits can be, by intervals, in balls around outliers.

    Certified detection of OOD inputs: `bounds.confidence` then proves for many of them, also of other sets, that no
    input of the ball (of the maximum norm, within [0, 1]) is answered with confidence; after outlier exposure or ACET
    it proves nothing. With `quantile` below 1 the largest bounds of a batch are let go, and the logits of these
    outliers are held together themselves: better detection without an attack, for fewer guarantees. Give it a set of
    real outliers by `data.outliers.taken_from(images)`. `caveat train` raises `weight` and `radius` from 0 over the
    first half of the training, the radius later. Costs about four times plain training. The model is `nn.Sequential` of
    layers with a rule, a linear one last.

    Formula: mean CE(x) + weight mean log(1 + b^2 / 2), b the upper bound of max_k f_k - min_l f_l in the ball, or, for
    the share 1 - quantile of the outliers whose bound is largest, its value at the outlier.

    Raises
    ------
    OptionError
        If `weight` is negative, `radius` not in [0, 1), or `quantile` not in [0, 1].

    Source: J. Bitterwolf, A. Meinke, M. Hein, Certifiably adversarially robust detection of out-of-distribution data,
    NeurIPS 2020 (arXiv 2007.08473), equations 6 to 9; weight and radius 0.3 for MNIST.
    """

    weight: int | float = 0.3
    radius: int | float = 0.3
    quantile: int | float = 1.0
    outliers: Outliers = uniform_like

    def __post_init__(self) -> None:
        at_least("weight", self.weight, 0)
        fraction("radius", self.radius, below=True)
        fraction("quantile", self.quantile)

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise; outliers are in [0, 1].

        Raises
        ------
        ModelError
            If the model is no `nn.Sequential` with a linear layer last, or a layer has no rule.
        DataError
            If outliers are outside of [0, 1].
        """
        layers, head = layers_of(model)
        if not self.weight:
            return functional.cross_entropy(model(inputs), labels)
        drawn = self.outliers(inputs, generator)
        around = Boxed.around(drawn, self.radius)
        value = replace(around, clean=torch.cat([inputs, drawn]))  # one pass: batch norm sees both; boxes of outliers
        for layer in layers:
            value = boxed(layer, value)
        known, ood = head(value.clean).split([len(inputs), len(drawn)])
        apart = _kept(differences(head, value).flatten(1).amax(1), ood.amax(1) - ood.amin(1), self.quantile)
        return functional.cross_entropy(known, labels) + self.weight * (apart.square() / 2).log1p().mean()

    def phases(self, epochs: int) -> list[tuple["Good", int]]:
        """What to train by in which epochs: plain in the first, then the weight rises, and the radius after it."""
        rise = epochs // 2
        late = min(1, rise - 1)
        rising = [
            (replace(self, weight=self.weight * k / rise, radius=self.radius * max(0, k - late) / rise), 1)
            for k in range(rise)
        ]
        return [*rising, (self, epochs - rise)]


def _kept(bounds: Tensor, clean: Tensor, quantile: float) -> Tensor:
    """The smallest bounds, as many as the quantile says, and for the others what is so at the input itself."""
    count = math.floor(len(bounds) * quantile)
    low = torch.zeros_like(bounds, dtype=torch.bool).index_fill(0, bounds.detach().argsort()[:count], True)
    return torch.where(low, bounds, clean)
