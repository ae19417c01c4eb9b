"""The pictures worth looking at: confident errors, uncertain correct answers, OOD inputs that pass as known."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from caveat.observations import Observations
from caveat.records import pictures, record
from caveat.types import Batches

__all__ = ["choose", "encoded", "take"]

Kind = Literal["confident error", "uncertain correct", "accepted OOD"]
SIDE = 64


def choose(
    name: str,
    values: Mapping[str, Tensor],
    observed: Mapping[str, Observations],
    batches: Mapping[str, Batches],
    *,
    positions: Tensor,
    classes: Sequence[str],
    known: str = "test",
    count: int = 12,
) -> list[record.Picture]:
    """Pick `count` pictures of each kind by the score `name` and encode them.

    `values` and `observed` are those of the parts that were judged; `positions` says where the known part's samples
    stand in the whole set.
    """
    chosen: list[record.Picture] = []
    for set_name, scores in values.items():
        seen = observed[set_name]
        predicted = seen.logits.argmax(dim=1)
        kinds: list[tuple[Kind, Tensor, bool]]
        if set_name == known:
            wrong = predicted != seen.labels
            kinds = [("confident error", wrong, False), ("uncertain correct", ~wrong, True)]
        else:
            kinds = [("accepted OOD", torch.ones_like(predicted, dtype=torch.bool), False)]
        for kind, mask, descending in kinds:
            candidates = mask.nonzero().flatten()
            order = scores[candidates].argsort(descending=descending, stable=True)[:count]
            rows = candidates[order]
            where = positions[rows] if set_name == known else rows
            images = take(batches[set_name], where)
            if images is None:
                continue
            confidence = seen.logits[rows].softmax(dim=1).amax(dim=1)
            for i, row in enumerate(rows.tolist()):
                png = encoded(images[i])
                if png is None:
                    return []
                chosen.append(
                    record.Picture(
                        kind=kind,
                        score=name,
                        value=float(scores[row]),
                        set=set_name,
                        index=int(where[i]),
                        predicted=classes[int(predicted[row])],
                        label=classes[int(seen.labels[row])] if set_name == known else None,
                        confidence=float(confidence[i]),
                        png=png,
                    )
                )
    return chosen


def take(batches: Batches, indices: Tensor) -> Tensor | None:
    """The inputs at `indices`, or None if their order can't be known again (a shuffled loader)."""
    own = getattr(batches, "take", None)
    if own is not None:
        return own(indices)[0]
    if isinstance(batches, DataLoader):
        if not isinstance(batches.sampler, SequentialSampler):
            return None
        return torch.stack([batches.dataset[i][0] for i in indices.tolist()]) if len(indices) else torch.empty(0)
    found: dict[int, Tensor] = {}
    wanted, start = set(indices.tolist()), 0
    for inputs, _ in batches:
        found |= {i: inputs[i - start] for i in range(start, start + len(inputs)) if i in wanted}
        start += len(inputs)
    return torch.stack([found[i] for i in indices.tolist()]) if found else torch.empty(0)


def encoded(image: Tensor) -> str | None:
    """Base64 PNG of at most `SIDE` pixels a side, or None for what is no picture."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.is_floating_point():
        return None
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    picture.thumbnail((SIDE, SIDE))
    return pictures.encoded(picture)
