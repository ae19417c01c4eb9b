"""What a service asks: a guard, and what whoever asks it must know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from caveat.errors import OptionError
from caveat.guard.entrance import invalid_rows
from caveat.guard.examples import Nearest
from caveat.guard.guard import Guard
from caveat.guard.monitor import FEW, Monitor
from caveat.guard.onnx_guard import OnnxGuard
from caveat.guard.verdict import INVALID, REASONS, Verdict
from caveat.posteriors.network import Predictive
from caveat.records.pictures import encoded, image

__all__ = ["MOST", "Served", "known", "neighbours", "of_graph", "of_guard", "rows"]

MOST = 10
"""Known examples beside a verdict, at most."""


@dataclass(frozen=True)
class Served:
    """A guard as a function of tensors, and what it takes and gives."""

    ask: Callable[[Tensor], Verdict]
    shape: tuple[int, ...]
    """Of one input."""
    largest: float | None
    """As in `Decision`; None of whole numbers."""
    classes: tuple[str, ...]
    score: str
    threshold: float
    promise: str
    platform: str
    """Of what runs the network, in the words of the Open Inference Protocol."""
    epistemic: bool
    """Whether its verdicts have an epistemic part."""
    levels: tuple[float, ...]
    """Scores between which there are about as many in-distribution inputs: the steps of a histogram."""
    watch: Callable[[float, int], Monitor] | None
    """Makes a monitor of a level and a seed; None where nothing is known to watch it by."""
    nearest: Callable[[Tensor], Nearest] | None = None
    """Gives the known examples nearest to each input, as many as may be asked for; None where none are kept."""
    digest: str = ""
    """Of what is served, to know it again."""

    @property
    def whole(self) -> bool:
        """Whether inputs are whole numbers."""
        return self.largest is None

    @property
    def picture(self) -> tuple[int, int, int] | None:
        """Channels, height and width, where inputs are pictures."""
        known = len(self.shape) == 3 and self.shape[0] in (1, 3) and not self.whole
        return (self.shape[0], self.shape[1], self.shape[2]) if known else None

    def check(self, inputs: Tensor) -> Tensor:
        """The inputs, if they are of the kind that the guard takes.

        Raises
        ------
        OptionError
            As `entrance.invalid_rows`.
        """
        invalid_rows(inputs, self.shape, self.largest)
        return inputs


def of_guard(guard: Guard, *, digest: str = "") -> Served:
    """Serve a guard in this process.

    Raises
    ------
    OptionError
        If it does not know the shape of its inputs.
    """
    made = guard.decision
    reference = made.reference.double().cpu()

    def watch(level: float, seed: int) -> Monitor:
        return Monitor(made.reference, made.reference_wrong, made.promise, level=level, seed=seed)

    one_at_a_time = Lock()  # a pass leaves what it saw in hooks of the network

    def ask(inputs: Tensor) -> Verdict:
        with one_at_a_time:
            return guard(inputs)

    def nearest(inputs: Tensor) -> Nearest:
        with one_at_a_time:
            return guard.nearest(inputs, min(MOST, len(made.examples or ())))

    return Served(
        ask=ask, nearest=None if made.examples is None else nearest, shape=_known(made.shape),
        largest=made.largest, classes=made.classes, score=made.score.name,
        threshold=made.promise.threshold, promise=f"{made.promise.kind} {made.promise.level:g}",
        platform="caveat_pytorch", epistemic=isinstance(guard.model, Predictive),
        levels=_levels(reference, made.promise.threshold), digest=digest,
        watch=watch if len(reference) >= FEW else None,
    )  # fmt: skip


def of_graph(guard: OnnxGuard) -> Served:
    """Serve an exported guard; one of an older version holds nothing to watch it by.

    Raises
    ------
    OptionError
        As `of_guard`.
    """
    about = guard.about
    threshold, reference = about.promise.threshold, torch.tensor(about.reference or ())

    def watch(level: float, seed: int) -> Monitor:
        return about.monitor(level=level, seed=seed)

    return Served(
        ask=guard, shape=_known(about.shape), largest=about.largest, classes=about.classes, score=about.score,
        threshold=threshold, promise=f"{about.promise.kind} {about.promise.level:g}", platform="onnxruntime_onnx",
        epistemic="epistemic" in guard.names, levels=_levels(reference, threshold),
        watch=watch if len(reference) >= FEW else None, digest=guard.digest,
    )  # fmt: skip


def neighbours(found: Nearest, classes: Sequence[str], count: int) -> list[list[dict[str, Any]]]:
    """At most `count` examples of each input as JSON, the most similar first; none of what cannot be looked at."""
    return [
        [
            {
                "label": classes[int(found.label[row, place])],
                "similarity": float(found.similarity[row, place]),
                "position": int(found.position[row, place]),
                "picture": f"data:image/png;base64,{encoded(image(found.picture[row, place].numpy()))}",
            }
            for place in range(min(count, found.label.shape[1]))
            if found.label[row, place] >= 0
        ]
        for row in range(len(found))
    ]


def _known(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape:
        raise OptionError(
            "guard: it knows no shape of its inputs (several tensors, or texts of any length), which a service checks "
            "requests by; use it in Python, or with  caveat guard run"
        )
    return shape


def _levels(reference: Tensor, threshold: float) -> tuple[float, ...]:
    """Some quantiles of the reference, and the threshold."""
    places = [round(share * (len(reference) - 1)) for share in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)]
    return tuple(sorted({float(reference[place]) for place in places if len(reference)} | {threshold}))


def rows(verdict: Verdict) -> list[dict[str, Any]]:
    """Verdicts as JSON, one an input; what is not known is null."""
    parts: dict[str, list[Any]] = {
        name: getattr(verdict, name).tolist()
        for name in ("accepted", "predicted", "confidence", "score", "p_value", "aleatoric", "reason", "probs")
    }
    epistemic = [None] * len(verdict) if verdict.epistemic is None else verdict.epistemic.tolist()
    found: list[dict[str, Any]] = []
    for row in range(len(verdict)):
        accepted, unseen = parts["accepted"][row], parts["reason"][row] == INVALID
        name = None if unseen else verdict.classes[parts["predicted"][row]]
        numbers = {key: known(parts[key][row]) for key in ("confidence", "score", "p_value", "aleatoric")}
        found.append(
            {
                "label": name if accepted else None,
                "accepted": accepted,
                "predicted": None if unseen else parts["predicted"][row],
                "predicted_name": name,
                **numbers,
                "epistemic": known(epistemic[row]),
                "reason": REASONS[parts["reason"][row]],
                "explanation": verdict.explain(row),
                "probs": [known(share) for share in parts["probs"][row]],
            }
        )
    return found


def known(value: float | None) -> float | None:
    """A number, or None in place of NaN and infinity, which JSON does not have."""
    return value if value is not None and abs(value) < float("inf") else None
