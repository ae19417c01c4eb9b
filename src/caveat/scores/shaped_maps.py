"""Activation shaping on feature maps: as on features, but before the average over pixels is taken.

In a map the few pixels that an object lights up stand out; in its mean they no longer do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from caveat.scores.ash import Shape, check_share, shaped
from caveat.scores.pooled import HeadEnergy, averaged
from caveat.types import Head, Look

__all__ = [
    "ShapedMaps",
    "binarised",
    "pruned",
    "scaled",
    "stretched",
    "to_binarise",
    "to_prune",
    "to_scale",
    "to_stretch",
]


@dataclass(frozen=True)
class ShapedMaps:
    """A probe: the features that the head would see if the last maps were shaped before they are averaged."""

    layers: tuple[str, ...]
    share: float
    variant: Shape
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n d"]:
        """A selection among the d h w activations of a sample."""
        maps = look.activations[self.layers[0]]
        return shaped(maps.flatten(1), self.share, self.variant).view_as(maps).mean(dim=(2, 3))


def to_prune(activations: Mapping[str, Tensor], features: Float[Tensor, "n d"], *, share: float = 0.65) -> ShapedMaps:
    """The probe of `pruned`; as `to_scale`."""
    return _probe(activations, features, share, "p")


def to_binarise(
    activations: Mapping[str, Tensor], features: Float[Tensor, "n d"], *, share: float = 0.65
) -> ShapedMaps:
    """The probe of `binarised`; as `to_scale`."""
    return _probe(activations, features, share, "b")


def to_scale(activations: Mapping[str, Tensor], features: Float[Tensor, "n d"], *, share: float = 0.65) -> ShapedMaps:
    """The probe of `scaled`, for the layer whose maps, averaged over pixels, are the head's `features`.

    Raises
    ------
    OptionError
        If `share` is not in [0, 1).
    DataError
        If no layer is: the features of this model are not averages of maps.
    """
    return _probe(activations, features, share, "s")


def to_stretch(activations: Mapping[str, Tensor], features: Float[Tensor, "n d"], *, share: float = 0.65) -> ShapedMaps:
    """The probe of `stretched`; as `to_scale`."""
    return _probe(activations, features, share, "scale")


def pruned(head: Head) -> HeadEnergy:
    """ASH-P on feature maps: the smallest activations of all pixels become 0. See `scaled`.

    Formula: -logsumexp(W mean(g(F)) + b), g(F) = F where it is among the largest, 1 - `share` of all, else 0.

    Source: Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, ICLR 2023
    (arXiv 2209.09858).
    """
    return HeadEnergy(*head)


def binarised(head: Head) -> HeadEnergy:
    """ASH-B on feature maps: the largest activations of all pixels share the sum of all equally. See `scaled`.

    Formula: -logsumexp(W mean(g(F)) + b), g(F) = sum(F)/k for each of the k largest, 1 - `share` of all, else 0.

    Source: Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, ICLR 2023
    (arXiv 2209.09858).
    """
    return HeadEnergy(*head)


def scaled(head: Head) -> HeadEnergy:
    """ASH-S on feature maps: as ASH-P there, then scaled by exp(sum of all / sum of the largest).

    Take it where the head's features are averages of maps; `ash_s` shapes what is left after the average. Of a sample's
    activations of all channels and pixels the smallest, `share` of all, become 0. Formula:
    -logsumexp(W mean(g(F)) + b), g(F) = F exp(sum(F) / sum of those that stay) where they stay, else 0.

    Source: Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, ICLR 2023
    (arXiv 2209.09858).
    """
    return HeadEnergy(*head)


def stretched(head: Head) -> HeadEnergy:
    """SCALE on feature maps: scaled by how much of them is in the largest activations of all pixels.

    Formula: -logsumexp(W mean(F) exp(sum(F) / sum of its largest entries, 1 - `share` of all) + b).

    Source: Xu et al., Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement, ICLR 2024
    (arXiv 2310.00227).
    """
    return HeadEnergy(*head)


def _probe(activations: Mapping[str, Tensor], features: Tensor, share: float, variant: Shape) -> ShapedMaps:
    check_share(share)
    return ShapedMaps((averaged(activations, features),), share, variant)
