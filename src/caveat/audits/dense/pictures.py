"""Going through the pictures of a dense audit, one at a time, and scoring their pixels."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caveat import scores as tables
from caveat.audits.dense.counts import groups
from caveat.errors import DataError, ModelError
from caveat.inputs import moved
from caveat.mixture import log_mean
from caveat.observations import glance
from caveat.precision import wide
from caveat.types import Batches, Drawing

__all__ = ["FROM_LOGITS", "Answer", "Plan", "answers"]

CHUNK = 8192
"""Pixels whose draws are scored together."""
FROM_LOGITS = tables.FROM_LOGITS | tables.FROM_RAW_LOGITS


@dataclass(frozen=True)
class Plan:
    """What does not change in the course of an audit."""

    model: nn.Module
    test: Batches
    names: tuple[str, ...]
    void: int | None
    kinds: dict[str, Tensor]

    def scored(self, answer: "Answer") -> dict[str, Tensor]:
        """Every score of the pixels of one picture, in chunks: draws of all pixels at once would be large."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for start in range(0, len(answer.labels), CHUNK):
            part = slice(start, start + CHUNK)
            for name in self.names:
                if name in tables.FROM_DRAWS:
                    assert answer.draws is not None
                    found[name].append(tables.FROM_DRAWS[name](answer.draws[:, part]))
                else:
                    found[name].append(FROM_LOGITS[name](answer.logits[part]))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def group(self, answer: "Answer") -> Tensor:
        """What each pixel of a picture is."""
        return groups(answer.labels, answer.logits.argmax(dim=1), self.void, list(self.kinds.values()))


@dataclass(frozen=True)
class Answer:
    """One picture: pixels first."""

    picture: Tensor
    logits: Tensor
    """`(p, c)`; of draws, the logarithm of their mean probabilities."""
    labels: Tensor
    draws: Tensor | None
    """`(s, p, c)`."""


def answers(plan: Plan) -> Generator[Answer]:
    """One picture after the other."""
    for number, (inputs, labels) in enumerate(plan.test):
        looks = _looks(plan, moved(inputs, plan.model), f"batch {number} of test")
        for place, (logits, draws) in enumerate(looks):
            if logits.ndim != 3 or labels.shape != (len(inputs), *logits.shape[1:]):
                raise DataError(
                    f"test: expected label maps (n, h, w) for logits (n, c, h, w), got {tuple(labels.shape)} for "
                    f"{(len(inputs), *logits.shape)}"
                )
            yield Answer(
                inputs[place], logits.flatten(1).T, labels[place].flatten().long().cpu(),
                None if draws is None else draws.flatten(2).movedim(1, 2),
            )  # fmt: skip


def _looks(plan: Plan, inputs: Tensor, where: str) -> Generator[tuple[Tensor, Tensor | None]]:
    """Logits `(c, h, w)` of each picture, and its draws `(s, c, h, w)` if there are any."""
    if not isinstance(plan.model, Drawing):
        yield from ((logits, None) for logits in glance(plan.model, inputs, None, {}, where)[0].cpu())
        return
    for one in inputs.split(1):  # the draws of several pictures at once would be large
        draws = wide(plan.model.draws(one)).cpu()
        if not bool(torch.isfinite(draws).all()):
            raise ModelError(f"model: expected finite logits, got NaN or infinity on {where}")
        yield log_mean(draws)[0], draws[:, 0]
