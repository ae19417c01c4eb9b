"""Changes to a set: of its pixels (`grey`, `rgb`, `resize`, `invert`) and of what belongs to it."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from caveat.data.numbers import Numbers
from caveat.data.source import Images, Indices, Source, subset
from caveat.data.texts import Texts
from caveat.errors import DataError, OptionError

__all__ = ["first", "grey", "invert", "only", "resize", "rgb", "sample", "without"]

Set = TypeVar("Set", Source, Texts, Numbers)

_LUMA = (0.299, 0.587, 0.114)


def grey(images: Images) -> Images:
    """One channel: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601); grey pictures stay as they are.

    Example
    -------
    >>> grey(torch.tensor([1.0, 0.0, 0.5]).reshape(1, 3, 1, 1)).item()
    0.356...
    """
    if images.shape[1] == 1:
        return images
    # The weights add up to 1 + 1e-8 in float32: white must stay in the box.
    return torch.einsum("nchw,c->nhw", images, images.new_tensor(_LUMA))[:, None].clamp(0, 1)


def rgb(images: Images) -> Images:
    """Three channels: a grey picture's is repeated; coloured pictures stay as they are."""
    return images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images


def resize(images: Images, size: tuple[int, int]) -> Images:
    """Height and width `size`: bilinear, antialiased where it shrinks; the aspect may change."""
    if images.shape[2:] == size:
        return images
    resized: Tensor = functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp(0, 1)


def invert(images: Images) -> Images:
    """Light for dark: 1 - pixel."""
    return 1 - images


def first(source: Set, count: int) -> Set:
    """The first `count` samples.

    Raises
    ------
    OptionError
        If the set has fewer.
    """
    _check_count(source, count, "first")
    return _subset(source, torch.arange(count))


def sample(source: Set, count: int, *, seed: int = 0) -> Set:
    """`count` samples drawn without replacement, in their old order.

    Raises
    ------
    OptionError
        If the set has fewer.
    """
    _check_count(source, count, "sample")
    drawn = np.random.default_rng(seed).permutation(len(source))[:count]
    return _subset(source, torch.from_numpy(np.sort(drawn)))


def only(source: Set, labels: tuple[int, ...]) -> Set:
    """The samples of the classes `labels`; the labels stay as they are.

    Raises
    ------
    DataError
        If no sample has one of these labels.
    """
    return _keep(source, _labelled(source, labels), f"only={_listed(labels)}")


def without(source: Set, labels: tuple[int, ...]) -> Set:
    """The samples of all classes but `labels`; the labels stay as they are.

    Raises
    ------
    DataError
        If a label does not occur, or no sample is left.
    """
    return _keep(source, ~_labelled(source, labels), f"without={_listed(labels)}")


def _labelled(source: Source | Texts | Numbers, labels: tuple[int, ...]) -> Tensor:
    if source.labels.is_floating_point():
        raise DataError(f"{source.name}: its labels are real numbers, of which none can be chosen by +only, +without")
    if source.labels.ndim > 1:
        raise DataError(
            f"{source.name}: each sample has several labels, of which none can be chosen by +only, +without"
        )
    present = set(source.labels.unique().tolist())
    for label in labels:
        if label not in present:
            known = f"{min(present)}..{max(present)}"
            raise DataError(f"{source.name}: no sample has the label {label}; its labels are in {known}")
    return torch.isin(source.labels, torch.tensor(labels))


def _keep(source: Set, mask: Tensor, modifier: str) -> Set:
    if not mask.any():
        raise DataError(f"{source.name}: +{modifier} leaves no sample")
    return _subset(source, mask.nonzero().flatten())


def _subset(source: Set, indices: Indices) -> Set:
    return subset(source, indices) if isinstance(source, Source) else source.among(indices)


def _check_count(source: Source | Texts | Numbers, count: int, modifier: str) -> None:
    if not 1 <= count <= len(source):
        raise OptionError(f"{source.name}: +{modifier}={count}: expected 1..{len(source)}, the number of its samples")


def _listed(labels: tuple[int, ...]) -> str:
    return ",".join(map(str, labels))
