"""Gram matrices of feature maps: how far correlations of channels leave the range of the predicted class."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import DataError
from caveat.scores.moments import check
from caveat.types import Labels, Logits, Look, Score

__all__ = ["GramDeviation", "GramProbe", "fit", "probe", "row_sums"]

POWERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class GramProbe:
    """A probe: row sums of the Gram matrices of several powers of its layers' maps, side by side."""

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    """How many numbers each layer gives."""
    powers: tuple[int, ...]
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n k"]:
        """Two products of a map with itself per power; no matrix of channels by channels is made."""
        return torch.cat([row_sums(look.activations[name], self.powers) for name in self.layers], dim=1)


def probe(activations: Mapping[str, Tensor], *, powers: tuple[int, ...] = POWERS) -> GramProbe:
    """The probe for these layers, whose outputs on a few inputs are given; vectors have no Gram matrix."""
    maps = {name: found for name, found in activations.items() if found.ndim == 4}
    if not maps:
        raise DataError("gram: the model has no feature maps (n, c, h, w)")
    return GramProbe(tuple(maps), tuple(found.shape[1] * len(powers) for found in maps.values()), powers)


def row_sums(maps: Float[Tensor, "n c h w"], powers: tuple[int, ...]) -> Float[Tensor, "n k"]:
    """For every power p and channel i: (sum_j sum_pixels F_i^p F_j^p)^(1/p), with its sign.

    Powers are taken of maps divided by their largest entry, so that none overflows.
    """
    flat = maps.flatten(2)
    largest = flat.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    parts: list[Tensor] = []
    for power in powers:
        raised = (flat / largest).pow(power)
        sums = (raised * raised.sum(dim=1, keepdim=True)).sum(dim=2)
        parts.append(sums.sign() * sums.abs().pow(1 / power) * largest[:, :, 0].square())
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class GramDeviation:
    """A fitted score, in [0, inf)."""

    low: Float[Tensor, "c k"]
    high: Float[Tensor, "c k"]
    expected: Float[Tensor, " l"]
    """Mean deviation of each layer on in-distribution data that the bounds were not taken from."""
    sizes: tuple[int, ...]

    def __call__(self, probed: Float[Tensor, "n k"], logits: Logits) -> Score:
        """A few operations per number."""
        return (_deviations(probed, logits.argmax(dim=1), self.low, self.high, self.sizes) / self.expected).sum(dim=1)


def fit(
    probed: Float[Tensor, "n k"], logits: Logits, labels: Labels, probe: GramProbe, *, held_out: float = 0.1
) -> GramDeviation:
    """Fit the range of every row sum for each class, and each layer's usual deviation on the share `held_out`.

    Looks at style and texture in all layers. Formula: sum over layers of d_l / E[d_l], d_l the sum over powers and
    channels of how far a row sum is outside the range of the predicted class, relative to the bound.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a number is NaN or infinite.

    Source: Sastry and Oore, Detecting Out-of-Distribution Examples with In-distribution Examples and Gram Matrices,
    ICML 2020 (arXiv 1912.12510).
    """
    check(probed, labels)
    step = max(2, round(1 / held_out)) if held_out > 0 else len(labels) + 1
    # every step-th sample of each class is held out, whatever the order of the set
    order = torch.argsort(labels, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    kept = rank % step != step - 1
    classes = logits.shape[1]
    # a class without samples gets the range of all
    low = probed[kept].amin(dim=0).repeat(classes, 1)
    high = probed[kept].amax(dim=0).repeat(classes, 1)
    for label in labels[kept].unique().tolist():
        own = probed[kept & (labels == label)]
        low[label], high[label] = own.amin(dim=0), own.amax(dim=0)
    rest = probed[~kept] if (~kept).any() else probed
    rest_labels = labels[~kept] if (~kept).any() else labels
    expected = _deviations(rest, rest_labels, low, high, probe.sizes).mean(dim=0)
    expected = torch.where(expected > 0, expected, torch.ones_like(expected))
    return GramDeviation(low, high, expected, probe.sizes)


def _deviations(probed: Tensor, classes: Tensor, low: Tensor, high: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Deviation per sample and layer, `(n, l)`."""
    tiny = 1e-6
    below = (low[classes] - probed).relu() / (low[classes].abs() + tiny)
    above = (probed - high[classes]).relu() / (high[classes].abs() + tiny)
    return torch.stack([part.sum(dim=1) for part in (below + above).split(list(sizes), dim=1)], dim=1)
