"""Known examples that a guard keeps to show beside its verdicts: small pictures, their labels and their features."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from caveat.data.modifiers import resize
from caveat.errors import DataError, OptionError
from caveat.observations import Observations

__all__ = ["Examples", "Nearest", "check", "nearest", "of", "restored"]

SIDE = 64
"""Pixels of the longer side of a picture that is kept, at most."""
PICTURE = 3
"""Axes of one picture."""


@dataclass(frozen=True)
class Examples:
    """Held-out pictures that a guard holds."""

    pictures: UInt8[Tensor, "k ch h w"]
    """Grey (ch = 1) or red, green, blue (ch = 3)."""
    labels: Int[Tensor, " k"]
    features: Float[Tensor, "k d"]
    """The input of the network's head, divided by its Euclidean length."""

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)


@dataclass(frozen=True)
class Nearest:
    """For every input the kept examples that are most similar to it, the most similar first."""

    position: Int[Tensor, "n k"]
    """Among the guard's examples; -1 of an input that cannot be looked at."""
    label: Int[Tensor, "n k"]
    """The example's true class; -1 likewise."""
    similarity: Float[Tensor, "n k"]
    """Cosine of the angle between the features, in [-1, 1]; 1 = the same direction, NaN likewise."""
    picture: UInt8[Tensor, "n k ch h w"]

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.label)


def check(shape: tuple[int, ...], count: int) -> None:
    """Refuse to keep examples of inputs that are no pictures; `shape` is that of one.

    Raises
    ------
    OptionError
        If there are none to keep, or none are wanted.
    """
    if count < 0:
        raise OptionError(f"examples: expected how many to keep, 0 or more, got {count}")
    if count and (len(shape) != PICTURE or shape[0] not in (1, 3)):
        raise OptionError(
            f"examples: expected pictures (n, 1 or 3, height, width) to keep some of, got inputs of shape {shape}; "
            "leave it out"
        )


def of(seen: Observations, count: int, inputs: Callable[[Tensor], Any]) -> Examples:
    """Keep at most `count` of the samples of `seen`, of every class as many as of the others where there are so many.

    `inputs` gives the pictures of positions in `seen`. Numbers that are not in [0, 1] (normalised pictures) are shifted
    and scaled to it, all alike.

    Raises
    ------
    OptionError
        If no features were observed, or the inputs are no pictures of floating numbers.
    """
    if seen.features is None:
        raise OptionError(
            "examples: the nearest are found by the network's features, which were not observed here; name the layer "
            "that makes the logits (head), or leave examples out"
        )
    rows = _in_turn(seen.labels)[:count].sort().values
    given = inputs(rows)
    if not isinstance(given, Tensor) or not given.is_floating_point():
        raise OptionError("examples: expected pictures of floating numbers; leave it out")
    check(tuple(given.shape[1:]), count)
    features = functional.normalize(seen.features[rows].float(), dim=1)
    return Examples(_small(given.detach().cpu().float()), seen.labels[rows].long(), features)


def restored(tensors: Mapping[str, Tensor], classes: int) -> Examples:
    """The examples in the tensors of a file.

    Raises
    ------
    DataError
        If they are no examples of a guard of so many classes.
    """
    if set(tensors) != {"pictures", "labels", "features"}:
        raise DataError(f"guard: its examples hold {sorted(tensors)}, expected pictures, labels and features")
    found = Examples(**tensors)
    pictures, labels, features = found.pictures, found.labels, found.features
    if (
        pictures.dtype != torch.uint8
        or pictures.ndim != PICTURE + 1
        or pictures.shape[1] not in (1, 3)
        or labels.dtype != torch.int64
        or not features.is_floating_point()
        or features.ndim != 2
        or not labels.shape == pictures.shape[:1] == features.shape[:1]
        or bool(((labels < 0) | (labels >= classes)).any())
        or not bool(features.isfinite().all())
    ):
        raise DataError("guard: its examples are no pictures with a label and finite features each; fit it again")
    return found


def nearest(kept: Examples, features: Float[Tensor, "n d"], invalid: Tensor, count: int) -> Nearest:
    """The `count` examples whose features have the largest cosine with those of each input.

    Raises
    ------
    OptionError
        If there are not so many.
    """
    if not 1 <= count <= len(kept):
        raise OptionError(f"n: expected 1 to {len(kept)}, as many examples as the guard keeps, got {count}")
    one = functional.normalize(features.flatten(1).float(), dim=1)
    found = (one @ kept.features.to(one).T).topk(count, dim=1)
    invalid = (invalid | ~one.isfinite().all(dim=1))[:, None].cpu()
    similarity, position = found.values.clamp(-1, 1).cpu(), found.indices.cpu()
    return Nearest(
        position.masked_fill(invalid, -1), kept.labels.cpu()[position].masked_fill(invalid, -1),
        similarity.masked_fill(invalid, torch.nan), kept.pictures.cpu()[position],
    )  # fmt: skip


def _in_turn(labels: Tensor) -> Tensor:
    """All positions: the first of every class, then the second of every class, and so on."""
    by_class = labels.argsort(stable=True)
    counts = labels[by_class].unique_consecutive(return_counts=True)[1]
    turn = torch.cat([torch.arange(count) for count in counts.tolist()])
    return by_class[turn.argsort(stable=True)]


def _small(pictures: Tensor) -> Tensor:
    """As bytes, at most `SIDE` pixels long."""
    low, high = min(0.0, float(pictures.min())), max(1.0, float(pictures.max()))
    height, width = pictures.shape[2:]
    share = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * share)), max(1, round(width * share))
    return (resize((pictures - low) / (high - low), size) * 255).round().to(torch.uint8)
