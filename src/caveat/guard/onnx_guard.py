"""A guard's exported graph as a guard again: onnxruntime answers, and no code of the network is needed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from caveat.batches import Several, given
from caveat.errors import DataError, MissingExtraError, OptionError
from caveat.files import parse_json, read_bytes
from caveat.guard.entrance import invalid_rows
from caveat.guard.monitor import Monitor
from caveat.guard.multilabel import MultilabelVerdict
from caveat.guard.onnx_file import OURS, Session, session
from caveat.guard.portable import INPUTS, SEAL, fits, sealed
from caveat.guard.regression import RegressionVerdict
from caveat.guard.stored import Operating, Task
from caveat.guard.threshold import Promise
from caveat.guard.verdict import ACCEPTED, INVALID, UNTRUSTED, Verdict
from caveat.records.base import Part

__all__ = ["OnnxGuard", "load"]

MOST = 1 << 31
"""Bytes that one ONNX file may have."""


class About(Part):
    """What a verdict takes from the metadata of a graph."""

    task: Task = "classification"
    classes: tuple[str, ...] = ()
    """Or the names of the labels of a multi-label network; none of a regression network."""
    error: float = 0.0
    """Of the intervals, or the share of the labels that is missed."""
    label_threshold: float = 0.0
    promise: Operating
    score: str
    shape: tuple[int, ...]
    largest: float | None
    columns: tuple[str, ...] | None
    reference: tuple[float, ...] | None = None
    """Ascending scores that a monitor compares with; None in graphs of older versions."""
    reference_wrong: tuple[int, ...] | None = None
    """None where no answer is simply wrong, too."""

    def monitor(self, *, level: float, seed: int) -> Monitor:
        """Watches the verdicts of this graph; see `Monitor`.

        Raises
        ------
        DataError
            If an older version exported the graph.
        """
        if self.reference is None:
            raise DataError("guard: an older version exported it, without what it is watched by; export it again")
        reference = torch.tensor(self.reference, dtype=torch.float64)
        wrong = None if self.reference_wrong is None else torch.tensor(self.reference_wrong, dtype=torch.bool)
        return Monitor(reference, wrong, Promise(**vars(self.promise)), level=level, seed=seed)


@dataclass(frozen=True)
class OnnxGuard:
    """Called on inputs it gives verdicts, as the guard did that was exported."""

    about: About
    digest: str
    """SHA-256 of the file, as it names it."""
    names: tuple[str, ...]
    run: Session

    def __call__(self, inputs: Any) -> Verdict | RegressionVerdict | MultilabelVerdict:
        """Answer or abstain for every input `(n, ...)`.

        Raises
        ------
        OptionError
            If the inputs have another shape than those the guard was fitted on, or are several.
        """
        known = given(inputs, "inputs")
        if isinstance(known, Several):
            raise OptionError("inputs: expected one tensor, got several: a graph takes one")
        invalid_rows(known, self.about.shape, self.about.largest)  # for what it refuses: the graph looks at each row
        arrays = self.run({INPUTS: known.cpu().numpy()})
        found = {name: torch.from_numpy(array) for name, array in zip(self.names, arrays, strict=True)}
        found["reason"] = torch.where(
            found["score"].isnan(), INVALID, torch.where(found["accepted"], ACCEPTED, UNTRUSTED)
        )
        return VERDICTS[self.about.task](found, self.about)


def _classified(found: Mapping[str, Tensor], about: About) -> Verdict:
    return Verdict(
        label=found["label"], accepted=found["accepted"], predicted=found["predicted"], probs=found["probabilities"],
        confidence=found["confidence"], score=found["score"], p_value=found["p_value"], reason=found["reason"],
        aleatoric=found["aleatoric"], epistemic=found.get("epistemic"), threshold=about.promise.threshold,
        score_name=about.score, classes=about.classes,
    )  # fmt: skip


def _regressed(found: Mapping[str, Tensor], about: About) -> RegressionVerdict:
    return RegressionVerdict(
        accepted=found["accepted"], prediction=found["prediction"], lower=found["lower"], upper=found["upper"],
        score=found["score"], p_value=found["p_value"], reason=found["reason"], aleatoric=found.get("aleatoric"),
        epistemic=found.get("epistemic"), error=about.error, threshold=about.promise.threshold, score_name=about.score,
    )  # fmt: skip


def _labelled(found: Mapping[str, Tensor], about: About) -> MultilabelVerdict:
    return MultilabelVerdict(
        accepted=found["accepted"], labels=found["labels"], predicted=found["predicted"], probs=found["probabilities"],
        score=found["score"], p_value=found["p_value"], reason=found["reason"], error=about.error,
        threshold=about.promise.threshold, label_threshold=about.label_threshold, score_name=about.score,
        names=about.classes,
    )  # fmt: skip


VERDICTS: Mapping[Task, Callable[[Mapping[str, Tensor], About], Verdict | RegressionVerdict | MultilabelVerdict]] = {
    "classification": _classified,
    "regression": _regressed,
    "multilabel": _labelled,
}
"""From what a graph gives to verdicts, by the task of the guard."""


def load(path: str | Path) -> OnnxGuard:
    """Read a graph that `caveat guard export` wrote, byte for byte. No other file is opened.

    Raises
    ------
    MissingExtraError
        Without the extra `export`.
    DataError
        If it is no such graph, was altered, or keeps tensors in other files.
    ModelError
        If onnxruntime cannot run it.
    """
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "export", "Running an exported guard")
    import onnx

    path = Path(path)
    data = read_bytes(path, name="guard", most=MOST)
    try:
        proto: Any = onnx.load_model_from_string(data)
    except Exception:  # whatever protobuf says of a file that is none
        raise DataError(f"guard: {path} is no ONNX file; make it with  caveat guard export") from None
    told = {entry.key: entry.value for entry in proto.metadata_props}
    names = tuple(output.name for output in proto.graph.output)
    if not {OURS, SEAL} <= told.keys() or not fits(told.get("task"), names):
        raise DataError(
            f"guard: {path} is an ONNX file, but not of a guard as this version exports it; make it with  caveat guard "
            "export"
        )
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(proto)):
        raise DataError(f"guard: {path} keeps tensors in other files, which no export does; nothing was read from them")
    if sealed(data, told[SEAL]) != told[SEAL]:
        raise DataError(f"guard: {path} was altered after it was written; export the guard again")
    return OnnxGuard(_about(told, path), told[SEAL], names, session(data, threads=torch.get_num_threads()))


def _about(told: dict[str, str], path: Path) -> About:
    texts = {name: told[name] for name in About.model_fields if name in told}
    try:
        return About.model_validate(
            {
                name: text if name in ("score", "task") else parse_json(text, name="guard", where=path)
                for name, text in texts.items()
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"guard: the metadata of {path} are not those of a guard: {place}: {first['msg']}") from None


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors of a model, wherever they stand: in graphs, in attributes of operations, in functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:  # one message, or several
            if field.message_type.name == "TensorProto":
                yield part
            else:
                yield from _tensors(part)
