"""The pictures worth looking at: confident errors, uncertain correct answers, OOD inputs that pass as known."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from caveat.attacks.network import answered
from caveat.batches import Several
from caveat.inputs import take
from caveat.observations import Observations
from caveat.records import pictures, record
from caveat.types import Batches

__all__ = ["Mistake", "choose", "encoded", "mistake"]

Kind = Literal["confident error", "uncertain correct", "accepted OOD"]
SIDE = 64


def choose(  # noqa: PLR0913  # what varies independently is a separate argument
    names: Sequence[str],
    values: Mapping[str, Mapping[str, Tensor]],
    observed: Mapping[str, Observations],
    batches: Mapping[str, Batches],
    *,
    positions: Tensor,
    prints: Tensor | None,
    classes: Sequence[str],
    known: str = "test",
    count: int = 12,
) -> list[record.Picture]:
    """Pick `count` pictures of each kind by each of the scores `names`, and encode them.

    `values` (per score) and `observed` are those of the parts that were judged; `positions` says where the test part's
    samples stand in the whole set, whose fingerprints are `prints`. Each set is read again once.
    """
    chosen: list[record.Picture] = []
    for set_name, seen in observed.items():
        picked: list[tuple[str, Kind, int]] = [
            (name, kind, row)
            for name in names
            for kind, rows in _picked(values[name][set_name], seen, set_name == known, count)
            for row in rows.tolist()
        ]
        whole = prints if set_name == known else seen.fingerprints
        if whole is None or not picked:
            continue
        rows = torch.tensor(sorted({row for _, _, row in picked}))
        where = positions[rows] if set_name == known else rows
        taken = take(batches[set_name], where, whole, set_name)
        if isinstance(taken, Several):
            return []
        images = dict(zip(rows.tolist(), taken, strict=True))
        place = dict(zip(rows.tolist(), where.tolist(), strict=True))
        encodings = {row: encoded(image) for row, image in images.items()}
        if None in encodings.values():
            return []  # the inputs are no pictures
        probs, predicted = seen.logits.softmax(dim=1).max(dim=1)
        chosen += [
            record.Picture(
                kind=kind,
                score=name,
                value=float(values[name][set_name][row]),
                set=set_name,
                index=place[row],
                predicted=classes[int(predicted[row])],
                label=classes[int(seen.labels[row])] if set_name == known else None,
                confidence=float(probs[row]),
                png=str(encodings[row]),
            )
            for name, kind, row in picked
        ]
    order = {name: at for at, name in enumerate(names)}
    return sorted(chosen, key=lambda picture: order[picture.score])


def _picked(scores: Tensor, seen: Observations, known: bool, count: int) -> list[tuple[Kind, Tensor]]:
    predicted = seen.logits.argmax(dim=1)
    kinds: list[tuple[Kind, Tensor, bool]] = [("accepted OOD", torch.ones_like(predicted, dtype=torch.bool), False)]
    if known:
        wrong = predicted != seen.labels
        kinds = [("confident error", wrong, False), ("uncertain correct", ~wrong, True)]
    found: list[tuple[Kind, Tensor]] = []
    for kind, mask, descending in kinds:
        rows = mask.nonzero().flatten()
        found.append((kind, rows[scores[rows].argsort(descending=descending, stable=True)[:count]]))
    return found


class Mistake(NamedTuple):
    """An input that was changed, and what the network says of it then."""

    label: str
    predicted: str
    confidence: float
    """In that answer."""
    before: str
    """Base64 of a PNG, like the next; empty for what is no picture."""
    after: str
    change: str
    """Grey is no change; scaled so that the largest change is black or white."""


def mistake(model: nn.Module, before: Tensor, after: Tensor, label: int, names: Sequence[str]) -> Mistake:
    """What an attack shows of one input."""
    with torch.no_grad():
        logits = answered(model, after[None])[0]
    predicted = int(logits.argmax())  # probabilities can be equal where logits are not
    change = after - before
    largest = change.abs().amax().clamp_min(torch.finfo(change.dtype).tiny)
    pngs = (encoded(image) or "" for image in (before, after, 0.5 + 0.5 * change / largest))
    label_name, other = (names[k] if k < len(names) else str(k) for k in (label, predicted))
    return Mistake(label_name, other, float(logits.softmax(0)[predicted]), *pngs)


def encoded(image: Tensor) -> str | None:
    """Base64 PNG of at most `SIDE` pixels a side, or None for what is no picture."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.is_floating_point():
        return None
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    picture = pictures.image(pixels.numpy())
    picture.thumbnail((SIDE, SIDE))
    return pictures.encoded(picture)
