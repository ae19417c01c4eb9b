"""Street scenes with a label for every pixel: what the readers of segmentation sets give."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from caveat.data.ahead import ahead
from caveat.data.modifiers import resize
from caveat.data.pictures import FORMATS, MOST_PIXELS, decode
from caveat.data.source import Images
from caveat.errors import DataError, OptionError

__all__ = ["VOID", "Scenes", "ShuffledScenes", "coded", "first", "read_map", "shares", "shuffled_scenes"]

VOID = 255
Maps = Int[Tensor, "n h w"]


@dataclass(frozen=True)
class Scenes:
    """Pictures and label maps, decoded batch by batch, in a fixed order.

    Going through it gives `(pictures (n, 3, h, w) float32 in [0, 1], labels (n, h, w) int64)`. Known classes are
    0 to c - 1, OOD kinds follow from c on, pixels that count for nothing are `void`.
    """

    name: str
    pictures: tuple[Path, ...]
    maps: tuple[Path, ...]
    classes: tuple[str, ...]
    """Names of the known classes."""
    ood: Mapping[str, tuple[int, ...]]
    """Labels of each kind that the network is not taught."""
    code: UInt8[Tensor, " 256"]
    """What each value of a map's file means here."""
    size: tuple[int, int] | None = None
    batch: int = 4
    void: int = VOID
    workers: int = 0
    """Threads that read batches ahead; 0 reads each when it is asked for."""

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[tuple[Images, Maps]]:
        chunks = [range(start, min(start + self.batch, len(self))) for start in range(0, len(self), self.batch)]
        parts = [map(self.take, chunks[start :: self.workers]) for start in range(min(self.workers, len(chunks)))]
        yield from ahead(parts) if parts else map(self.take, chunks)

    def take(self, indices: Sequence[int] | Int[Tensor, " k"]) -> tuple[Images, Maps]:
        """The pictures and maps at `indices`, in that order.

        Raises
        ------
        DataError
            If a position is not in the set, a file is broken, or picture and map differ in size.
        """
        found = [self._one(int(i)) for i in indices]
        shapes = {picture.shape for picture, _ in found}
        if len(shapes) > 1:
            raise DataError(f"{self.name}: pictures of different sizes in one batch: give size=(height, width)")
        return torch.cat([picture for picture, _ in found]), torch.cat([labels for _, labels in found])

    def _one(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise DataError(f"{self.name}: indices must be in 0..{len(self) - 1}, got {index}")
        path = self.pictures[index]
        picture = decode(path, place=f"{self.name}: {path.name}").float().div_(255)[None]
        picture = picture if picture.shape[1] == 3 else picture.expand(-1, 3, -1, -1)
        values = read_map(self.maps[index], place=self.name)
        if values.shape != picture.shape[2:]:
            raise DataError(
                f"{self.name}: {self.maps[index].name} is {tuple(values.shape)}, its picture {tuple(picture.shape[2:])}"
            )
        labels = self.code[values.long()].long()[None]
        if self.size is not None:
            picture = resize(picture, self.size)
            # nearest: labels are names, between two of them there is nothing
            labels = functional.interpolate(labels[:, None].double(), self.size, mode="nearest-exact")[:, 0].long()
        return picture, labels


@dataclass(frozen=True)
class ShuffledScenes:
    """All scenes once a pass, in an order drawn when the pass begins; OOD kinds are void: they are not taught."""

    pictures: UInt8[Tensor, "n 3 h w"]
    labels: UInt8[Tensor, "n h w"]
    batch: int
    generator: torch.Generator
    flip: bool

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch)

    def __iter__(self) -> Iterator[tuple[Images, Maps]]:
        order = torch.randperm(len(self.labels), generator=self.generator)
        for chunk in order.split(self.batch):
            inputs, labels = self.pictures[chunk].float().div_(255), self.labels[chunk].long()
            if self.flip:
                turn = torch.rand(len(chunk), generator=self.generator) < 0.5
                inputs = torch.where(turn[:, None, None, None], inputs.flip(-1), inputs)
                labels = torch.where(turn[:, None, None], labels.flip(-1), labels)
            yield inputs, labels


def shuffled_scenes(scenes: Scenes, *, batch: int = 4, generator: torch.Generator, flip: bool = True) -> ShuffledScenes:
    """Hold `scenes` in memory, decoded once as bytes, and give them in a new order every epoch, for training.

    Pixels of OOD kinds become void, so that nothing is learnt about them. `flip` mirrors every other scene, drawn
    anew each epoch. CamVid at 360x480 takes 250 MB, at 180x240 a quarter. The generator must be on the CPU.

    Raises
    ------
    OptionError
        If `batch` is not positive.
    DataError
        If a file is broken or sizes differ.
    """
    if batch < 1:
        raise OptionError(f"batch: expected at least 1, got {batch}")
    parts = [((images * 255).round().to(torch.uint8), labels) for images, labels in scenes]
    if len({images.shape[1:] for images, _ in parts}) > 1:
        raise DataError(f"{scenes.name}: pictures of different sizes: give size=(height, width)")
    labels = torch.cat([labels for _, labels in parts])
    labels[labels >= len(scenes.classes)] = scenes.void
    return ShuffledScenes(torch.cat([p for p, _ in parts]), labels.to(torch.uint8), batch, generator, flip)


def first(scenes: Scenes, count: int) -> Scenes:
    """The first `count` scenes.

    Raises
    ------
    OptionError
        If the set has fewer.
    """
    if not 1 <= count <= len(scenes):
        raise OptionError(f"{scenes.name}: expected 1..{len(scenes)} scenes, got {count}")
    return replace(scenes, pictures=scenes.pictures[:count], maps=scenes.maps[:count])


def shares(scenes: ShuffledScenes, *, classes: int) -> Float[Tensor, " c"]:
    """Share of each class among the labelled pixels; what ENet's class weights are made of."""
    counts = scenes.labels.flatten().long().bincount(minlength=256)[:classes].double()
    return counts / counts.sum()


def read_map(path: Path, *, place: str) -> UInt8[Tensor, "h w"]:
    """The values of a label map: a PNG of one 8-bit channel, or with a palette.

    Raises
    ------
    DataError
        Beginning with `place`: if it is no such picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{place}: {path.name} has {image.width}x{image.height} pixels, too many to read")
            if image.format != "PNG" or image.mode not in ("L", "P"):
                raise DataError(
                    f"{place}: {path.name} is {image.format} of mode {image.mode}: expected a PNG of labels"
                )
            return torch.from_numpy(np.array(image))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything
        raise DataError(f"{place}: {path} is not a readable label map ({str(error).splitlines()[0]})") from None


def coded(
    values: Mapping[int, str], *, hidden: Sequence[str], name: str
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], UInt8[Tensor, " 256"]]:
    """Known classes, OOD kinds and the code of a file's `values`: all that is not named is void.

    Raises
    ------
    OptionError
        If a hidden class does not exist, or fewer than two classes are left.
    """
    for kind in hidden:
        if kind not in values.values():
            raise OptionError(f"{name}: there is no class {kind!r}; expected one of {', '.join(values.values())}")
    classes = tuple(title for title in values.values() if title not in hidden)
    if len(classes) < 2:
        raise OptionError(f"{name}: expected at least two known classes, {len(classes)} is left")
    order = [*classes, *dict.fromkeys(hidden)]
    code = torch.full((256,), VOID, dtype=torch.uint8)
    for value, title in values.items():
        code[value] = order.index(title)
    return classes, {kind: (order.index(kind),) for kind in dict.fromkeys(hidden)}, code
