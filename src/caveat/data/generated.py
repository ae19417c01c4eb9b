"""Sets that are computed, not read: noise, letters, and the pictures of another set made strange."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch

from caveat.data import fonts, outliers
from caveat.data.source import Images, Indices, Source
from caveat.errors import OptionError

__all__ = [
    "BLOCK",
    "Maker",
    "acet",
    "blank",
    "blobs",
    "generated",
    "letters",
    "normal",
    "occluded",
    "permuted",
    "quarter_turned",
    "uniform",
]

BLOCK = 256
"""Pictures are made in blocks of this many, each from its own seed: the batch size changes no pixel."""

Maker: TypeAlias = Callable[[Source, Indices, torch.Generator], Images]
"""From the set to resemble, positions in it and a generator, to as many pictures of the same shape."""


def generated(make: Maker, like: Source, *, name: str, batch: int, seed: int) -> Source:
    """A set of as many pictures as `like` has, of its shape, with the label -1; made when asked for.

    The same `seed` gives the same pixels on every pass, in every order and with every batch size. At most one block of
    256 pictures is kept.
    """

    count = len(like)  # now: pictures that cannot be read are passed over later

    def block(number: int) -> Images:
        indices = torch.arange(number * BLOCK, min((number + 1) * BLOCK, count))
        return make(like, indices, _generator(seed, number))

    def read(chunks: Iterable[Indices]) -> Iterator[Images]:
        number, current = -1, torch.empty(0)
        for chunk in chunks:
            images = torch.empty(len(chunk), *like.shape, dtype=torch.float32)
            for wanted in torch.unique(chunk // BLOCK).tolist():
                if wanted != number:
                    number, current = wanted, block(wanted)
                here = (chunk // BLOCK == wanted).nonzero().flatten()
                images[here] = current[chunk[here] % BLOCK]
            yield images

    return Source(name, like.shape, torch.full((count,), -1), None, batch, read, generated=True)


def blank(shape: tuple[int, int, int], *, name: str, count: int = 1000) -> Source:
    """What noise can be made like where there is a shape but no set: asked for its pictures, it says that it has none.

    `name` is that of the set to be generated.
    """

    def read(_: Iterable[Indices]) -> Iterator[Images]:
        raise OptionError(
            f"{name}: made of the pictures of another set, and there is none here: expected a set of pictures, or "
            "noise that needs their shape alone: noise:uniform, noise:normal, blobs, letters"
        )

    return Source(name, shape, torch.full((count,), -1), None, BLOCK, read)


def uniform(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """Uniform noise."""
    return outliers.uniform((len(indices), *like.shape), generator)


def normal(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """Gaussian noise around grey."""
    return outliers.normal((len(indices), *like.shape), generator)


def permuted(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """The pictures of `like` with their pixels in a random order."""
    return outliers.permuted(like.take(indices)[0], generator)


def blobs(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """Amorphous shapes."""
    return outliers.blobs((len(indices), *like.shape), generator)


def acet(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """The noise of ACET: permuted pictures and uniform noise, low-passed and stretched."""
    return outliers.permuted_then_blurred(like.take(indices)[0], generator)


def quarter_turned(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """The pictures of `like`, turned by 90 or 270 degrees."""
    return outliers.quarter_turned(like.take(indices)[0], generator)


def occluded(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """The pictures of `like` under a black square of about 4/7 to 5/7 of their shorter side: 16 to 20 pixels of 28."""
    side = min(like.shape[1:])
    return outliers.occluded(like.take(indices)[0], generator, sides=(round(side * 4 / 7), round(side * 5 / 7)))


def letters(like: Source, indices: Indices, generator: torch.Generator) -> Images:
    """Letters rendered from a font."""
    return fonts.letters((len(indices), *like.shape), generator)


def _generator(seed: int, block: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)  # its seeds have 63 bits
