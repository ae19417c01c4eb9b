"""What a service asks: a guard, and what whoever asks it must know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from caveat.errors import OptionError
from caveat.guard.entrance import invalid_rows
from caveat.guard.examples import Nearest
from caveat.guard.guard import Guard
from caveat.guard.monitor import FEW, Monitor
from caveat.guard.multilabel import MultilabelGuard, MultilabelVerdict
from caveat.guard.onnx_guard import OnnxGuard
from caveat.guard.portable import MORE, OUTPUTS
from caveat.guard.regression import RegressionGuard, RegressionVerdict, told
from caveat.guard.stored import Task
from caveat.guard.tasks import AnyGuard
from caveat.guard.verdict import INVALID, REASONS, Verdict
from caveat.posteriors.network import Predictive
from caveat.records.pictures import encoded, image

__all__ = ["MOST", "Answer", "Served", "known", "neighbours", "of_graph", "of_guard", "rows"]

MOST = 10
"""Known examples beside a verdict, at most."""
OF_TASK: Mapping[Task, tuple[str, ...]] = {
    "classification": (), "regression": ("error",), "multilabel": ("error", "label_threshold"),
}  # fmt: skip
"""Numbers that are said with every answer, as decisions and graphs call them."""


Answer = Verdict | RegressionVerdict | MultilabelVerdict
"""Verdicts of a guard of any task, a row for each input."""


@dataclass(frozen=True)
class Served:
    """A guard as a function of tensors, and what it takes and gives."""

    ask: Callable[[Tensor], Answer]
    shape: tuple[int, ...]
    """Of one input."""
    largest: float | None
    """As in `Decision`; None of whole numbers."""
    classes: tuple[str, ...]
    """Or the names of the labels of a multi-label network; none of a regression network."""
    score: str
    threshold: float
    promise: str
    platform: str
    """Of what runs the network, in the words of the Open Inference Protocol."""
    outputs: tuple[str, ...]
    """What its verdicts hold, as those of the exported graph are called."""
    levels: tuple[float, ...]
    """Scores between which there are about as many in-distribution inputs: the steps of a histogram."""
    watch: Callable[[float, int], Monitor] | None
    """Makes a monitor of a level and a seed; None where nothing is known to watch it by."""
    nearest: Callable[[Tensor], Nearest] | None = None
    """Gives the known examples nearest to each input, as many as may be asked for; None where none are kept."""
    digest: str = ""
    """Of what is served, to know it again."""
    task: Task = "classification"
    of_task: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of a regression or multi-label guard, the error that is promised; of the latter, the threshold of a label."""

    @property
    def about(self) -> dict[str, Any]:
        """What every answer says of the guard."""
        named = {} if self.task == "regression" else {"classes": list(self.classes)}
        told = {"score": self.score, "threshold": self.threshold, "promise": self.promise}
        return {**named, **told, **self.of_task}

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


def of_guard(guard: AnyGuard, *, digest: str = "") -> Served:
    """Serve a guard in this process.

    Raises
    ------
    OptionError
        If it does not know the shape of its inputs.
    """
    made = guard.decision
    one_at_a_time = Lock()  # a pass leaves what it saw in hooks of the network

    def ask(inputs: Tensor) -> Answer:
        with one_at_a_time:
            return guard(inputs)

    if isinstance(guard, Guard):
        wrong, own = guard.decision.reference_wrong, _classifier(guard, one_at_a_time)
    else:
        wrong, own = None, _regressor(guard) if isinstance(guard, RegressionGuard) else _labeller(guard)
    reference = made.reference.double().cpu()

    def watch(level: float, seed: int) -> Monitor:
        return Monitor(reference, wrong, made.promise, level=level, seed=seed)

    return Served(
        ask=ask, shape=_known(made.shape), largest=made.largest, threshold=made.promise.threshold,
        promise=f"{made.promise.kind} {made.promise.level:g}", platform="caveat_pytorch",
        levels=_levels(reference, made.promise.threshold), digest=digest,
        watch=watch if len(reference) >= FEW else None, **own,
    )  # fmt: skip


def _classifier(guard: Guard, one_at_a_time: Lock) -> dict[str, Any]:
    """What is said of a guard of this task alone."""
    made, kept = guard.decision, guard.decision.examples

    def nearest(inputs: Tensor) -> Nearest:
        with one_at_a_time:
            return guard.nearest(inputs, min(MOST, len(kept or ())))

    more = MORE["classification"] if isinstance(guard.model, Predictive) else ()
    return {
        "task": "classification", "classes": made.classes, "score": made.score.name,
        "outputs": OUTPUTS["classification"] + more, "nearest": None if kept is None else nearest,
    }  # fmt: skip


def _regressor(guard: RegressionGuard) -> dict[str, Any]:
    made, model = guard.decision, guard.model
    outputs = OUTPUTS["regression"] + told(made, model.count if isinstance(model, Predictive) else 1)
    return {
        "task": "regression", "classes": (), "score": made.score, "outputs": outputs,
        "of_task": {name: getattr(made, name) for name in OF_TASK["regression"]},
    }  # fmt: skip


def _labeller(guard: MultilabelGuard) -> dict[str, Any]:
    made = guard.decision
    return {
        "task": "multilabel", "classes": made.names, "score": made.score, "outputs": OUTPUTS["multilabel"],
        "of_task": {name: getattr(made, name) for name in OF_TASK["multilabel"]},
    }  # fmt: skip


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

    of_task = {name: getattr(about, name) for name in OF_TASK[about.task]}
    return Served(
        ask=guard, shape=_known(about.shape), largest=about.largest, classes=about.classes, score=about.score,
        threshold=threshold, promise=f"{about.promise.kind} {about.promise.level:g}", platform="onnxruntime_onnx",
        outputs=guard.names, task=about.task, of_task=of_task, levels=_levels(reference, threshold),
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


def rows(verdict: Answer) -> list[dict[str, Any]]:
    """Verdicts as JSON, one an input; what is not known is null."""
    return [
        {
            **_of_task(verdict, row),
            "accepted": bool(verdict.accepted[row]),
            "score": known(float(verdict.score[row])),
            "p_value": known(float(verdict.p_value[row])),
            "reason": REASONS[int(verdict.reason[row])],
            "explanation": verdict.explain(row),
        }
        for row in range(len(verdict))
    ]


def _of_task(verdict: Answer, row: int) -> dict[str, Any]:
    if isinstance(verdict, MultilabelVerdict):
        return _row_of_labels(verdict, row)
    if isinstance(verdict, RegressionVerdict):
        return _numbers(verdict, row, ("prediction", "lower", "upper", "aleatoric", "epistemic"))
    return _row(verdict, row)


def _row(verdict: Verdict, row: int) -> dict[str, Any]:
    unseen = int(verdict.reason[row]) == INVALID
    name = None if unseen else verdict.classes[int(verdict.predicted[row])]
    return {
        "label": name if bool(verdict.accepted[row]) else None,
        "predicted": None if unseen else int(verdict.predicted[row]),
        "predicted_name": name,
        **_numbers(verdict, row, ("confidence", "aleatoric", "epistemic")),
        "probs": [known(share) for share in verdict.probs[row].tolist()],
    }


def _row_of_labels(verdict: MultilabelVerdict, row: int) -> dict[str, Any]:
    def named(present: Tensor) -> list[str]:
        return [name for name, here in zip(verdict.names, present[row].tolist(), strict=True) if here]

    return {
        "labels": named(verdict.labels) if bool(verdict.accepted[row]) else None,
        "predicted": None if int(verdict.reason[row]) == INVALID else named(verdict.predicted),
        "probs": [known(share) for share in verdict.probs[row].tolist()],
    }


def _numbers(verdict: Answer, row: int, names: Sequence[str]) -> dict[str, float | None]:
    parts: dict[str, Tensor | None] = {name: getattr(verdict, name) for name in names}
    return {name: None if part is None else known(float(part[row])) for name, part in parts.items()}


def known(value: float | None) -> float | None:
    """A number, or None in place of NaN and infinity, which JSON does not have."""
    return value if value is not None and abs(value) < float("inf") else None
