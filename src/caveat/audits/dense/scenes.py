"""Pictures of a dense audit: the scenes with most OOD pixels, or else the least sure ones, as PNGs."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from caveat.records.pictures import encoded
from caveat.records.scenes import Scene, Scenes

__all__ = ["Views", "colours"]

WIDTH = 320
VOID_COLOUR = "#000000"


def colours(names: Sequence[str]) -> dict[str, str]:
    """One colour for each name: hues a golden section apart, so that neighbours differ."""
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1, (0.5, 0.65, 0.38)[number % 3], 0.6)
        found[name] = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    return found


@dataclass(frozen=True)
class _Candidate:
    merit: tuple[float, float, int]
    index: int
    accuracy: float | None
    ood: float
    picture: Tensor
    labels: Tensor
    prediction: Tensor
    confidence: Tensor
    uncertainty: Tensor


@dataclass
class Views:
    """Keeps the `count` scenes most worth looking at while a set streams by."""

    count: int
    found: list[_Candidate] = field(default_factory=list)
    seen: int = 0

    def offer(self, picture: Tensor, logits: Tensor, labels: Tensor, group: Tensor, uncertainty: Tensor) -> None:
        """One picture `(ch, h, w)`; of its pixels logits `(p, c)`, labels, groups (see `pixels.Counts`) and a score."""
        if not self.count or len(picture) not in (1, 3):
            return
        index, self.seen = self.seen, self.seen + 1
        seen = group >= 0
        ood = float((group > 1).sum() / seen.sum().clamp_min(1))
        known = (group == 0) | (group == 1)
        accuracy = float((group == 0).sum() / known.sum()) if bool(known.any()) else None
        merit = (ood, float(uncertainty[seen].double().mean()) if bool(seen.any()) else 0.0, -index)
        if len(self.found) == self.count and merit <= self.found[-1].merit:
            return
        size = tuple(picture.shape[1:])
        maps = [
            _small(values.reshape(size))
            for values in (labels, logits.argmax(1), logits.double().softmax(1).amax(1), uncertainty.double())
        ]
        own = _Candidate(merit, index, accuracy, ood, _small(picture), *maps)
        self.found = sorted([*self.found, own], key=lambda candidate: candidate.merit, reverse=True)[: self.count]

    def scenes(self, score: str, low: float, high: float, names: Sequence[str]) -> Scenes | None:
        """The chosen scenes, encoded; None if there are none."""
        if not self.found:
            return None
        palette = colours(names)
        shades = list(palette.values())
        scale = high - low if high > low else 1.0
        shown = [
            Scene(
                index=one.index, accuracy=one.accuracy, ood=one.ood, picture=_png(one.picture),
                labels=_named(one.labels, shades), prediction=_named(one.prediction, shades),
                confidence=_grey(one.confidence), uncertainty=_grey((one.uncertainty - low) / scale),
            )
            for one in self.found
        ]  # fmt: skip
        return Scenes(score=score, low=low, high=high, colours=palette, shown=shown)


def _small(values: Tensor) -> Tensor:
    """At most `WIDTH` pixels wide: the mean of numbers, the nearest of labels."""
    height, width = values.shape[-2:]
    if width <= WIDTH:
        return values
    size = (max(1, round(height * WIDTH / width)), WIDTH)
    planes = values.reshape(1, -1, height, width).double()
    mode = "area" if values.is_floating_point() else "nearest-exact"
    return functional.interpolate(planes, size, mode=mode).reshape(*values.shape[:-2], *size).to(values.dtype)


def _png(picture: Tensor) -> str:
    pixels = (picture.detach().double().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = (pixels if len(pixels) == 3 else pixels.expand(3, -1, -1)).permute(1, 2, 0).numpy()
    # 64 colours: a third of the size, and enough to see what is there
    return encoded(Image.fromarray(array).quantize(64))


def _grey(values: Tensor) -> str:
    levels = (values.double().clamp(0, 1) * 31).round().mul(255 / 31).to(torch.uint8)
    return encoded(Image.fromarray(levels.cpu().numpy()))


def _named(labels: Tensor, shades: Sequence[str]) -> str:
    """A picture with a palette; what is not among the names is black."""
    known = (labels >= 0) & (labels < len(shades))
    image = Image.fromarray(torch.where(known, labels, len(shades)).to(torch.uint8).cpu().numpy())
    image.putpalette([int(shade[i : i + 2], 16) for shade in (*shades, VOID_COLOUR) for i in (1, 3, 5)])
    return encoded(image)
