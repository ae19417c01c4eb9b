"""An exported guard where neither Caveat nor torch is installed.

This file stands alone, on numpy and onnxruntime: `mlflow.write` puts a copy of it beside a graph. MLflow loads that.
"""

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BLANK", "INPUTS", "MORE", "OUTPUTS", "SEAL", "PortableGuard", "fits", "sealed"]

INPUTS = "inputs"
"""Name of what a graph takes beside the threshold."""
OUTPUTS = {
    "classification": (
        "label", "predicted", "probabilities", "confidence", "score", "p_value", "accepted", "aleatoric",
    ),
    "regression": ("prediction", "lower", "upper", "score", "p_value", "accepted"),
    "multilabel": ("labels", "predicted", "probabilities", "score", "p_value", "accepted"),
}  # fmt: skip
"""What a graph gives in any case, in this order, by the task of the guard."""
MORE = {"classification": ("epistemic",), "regression": ("aleatoric", "epistemic"), "multilabel": ()}
"""What it gives after that, where the network tells it."""
SEAL = "sha256"
"""A key of the metadata: the SHA-256 of the file's bytes, with zeros in its own place."""
BLANK = 64 * "0"
COLUMNS = {
    "classification": (
        "label", "accepted", "predicted", "predicted_name", "confidence", "score", "p_value", "aleatoric", "epistemic",
        "reason",
    ),
    "regression": (
        "prediction", "lower", "upper", "accepted", "score", "p_value", "aleatoric", "epistemic", "reason",
    ),
    "multilabel": ("labels", "accepted", "predicted", "probabilities", "score", "p_value", "reason"),
}  # fmt: skip
"""Of a table of verdicts, by the task of the guard; `epistemic` and of a regression `aleatoric` where they are told."""
REASONS = ("accepted", "untrusted", "invalid input")
_ENTRY = re.compile(rb"\n\x06sha256\x12@([0-9a-f]{64})")
"""The seal among the metadata, as ONNX writes texts: each after its length."""


def sealed(data: bytes, seal: str = "") -> str:
    """The SHA-256 that the bytes of a graph must name; `seal` is what they name where they are sealed already."""
    return hashlib.sha256(data.replace(seal.encode(), BLANK.encode()) if seal else data).hexdigest()


def fits(task: str | None, names: Collection[str]) -> bool:
    """Whether these are the outputs of a guard of this task; graphs of older versions name none."""
    known = task or "classification"
    return known in OUTPUTS and set(OUTPUTS[known]) <= set(names) <= {*OUTPUTS[known], *MORE[known]}


class PortableGuard:
    """An exported guard as onnxruntime runs it on the CPU."""

    def __init__(self, data: bytes, where: str | Path, *, seal: str | None = None) -> None:
        """Look at a graph before anything of it is run; `seal` is the one that is meant, if that is known.

        Raises
        ------
        ValueError
            If it is no exported guard, was altered, is another one, or is of another version of the format.
        """
        found = _ENTRY.findall(data)
        if len(found) != 1:
            raise ValueError(f"guard: {where} is no guard that  caveat guard export  wrote")
        self.seal = found[0].decode()
        if sealed(data, self.seal) != self.seal:
            raise ValueError(f"guard: {where} was altered after it was written; export the guard again")
        if seal not in (None, self.seal):
            raise ValueError(
                f"guard: {where} is another guard (SHA-256 {self.seal[:16]}) than the one that belongs here "
                f"({str(seal)[:16]}); put that back, or export it again"
            )
        import onnxruntime

        options: Any = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of every default that can be set
        self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.names = tuple(one.name for one in self._session.get_outputs())
        self.about: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        taken = {one.name: one for one in self._session.get_inputs()}
        self.task = self.about.get("task", "classification")
        if not fits(self.task, self.names) or set(taken) != {INPUTS}:
            raise ValueError(
                f"guard: {where} was exported by Caveat {self.about.get('caveat_version')} in a form that this code "
                "does not read; export the guard again, with the version that made this code"
            )
        kind = str(taken[INPUTS].type)[len("tensor(") : -1]
        self.dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
        self.shape = tuple(size if isinstance(size, int) else -1 for size in taken[INPUTS].shape[1:])
        """Of one input; -1 where any size will do."""
        self.classes: list[str] = json.loads(self.about.get("classes", "[]"))
        """Of a classifier; of a network of several labels their names."""
        self.columns: list[str] | None = json.loads(self.about["columns"])

    def answer(self, inputs: Any) -> dict[str, Any]:
        """Verdicts on inputs `(n, ...)`: an array of n values by name of the column, as `predict` explains.

        Raises
        ------
        ValueError
            If a table lacks a column, or the inputs are of another shape or no numbers.
        """
        raw = dict(zip(self.names, self._session.run(None, {INPUTS: self._array(inputs)}), strict=True))
        unreadable = np.isnan(raw["score"])
        if self.task == "classification":
            raw["predicted"] = np.where(unreadable, -1, raw["predicted"])
            raw["predicted_name"] = np.array([*self.classes, None], dtype=object)[raw["predicted"]]
        if self.task == "multilabel":
            raw |= {name: self._named(raw[name]) for name in ("labels", "predicted")}
            raw["probabilities"] = _lists(raw["probabilities"].tolist())
        raw["reason"] = np.array(REASONS, dtype=object)[np.where(unreadable, 2, np.where(raw["accepted"], 0, 1))]
        return {name: raw[name] for name in COLUMNS[self.task] if name in raw}

    def _named(self, present: Any) -> Any:
        """The labels of each input by name."""
        return _lists([[name for name, here in zip(self.classes, row, strict=True) if here] for row in present])

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """Verdicts as a pandas DataFrame, one row an input: what MLflow calls.

        In any case `accepted`; `score` (higher = less trustworthy); `p_value`; `reason`: accepted, untrusted or
        invalid input. Of a classifier `label`, the class, -1 where the guard abstains; `predicted` and
        `predicted_name`, the class in any case (-1 and None where the input cannot be read); `confidence`; `aleatoric`
        and of a posterior `epistemic` uncertainty in nats. Of a regression network `prediction`, `lower` and `upper`,
        and as far as it tells them `aleatoric` and `epistemic`, standard deviations. Of one of several labels lists:
        `labels`, empty where the guard abstains, `predicted`, the labels in any case, and `probabilities` in the order
        of the metadata's `classes`.
        """
        import pandas  # pyright: ignore[reportMissingImports]  # MLflow brings it

        return pandas.DataFrame(self.answer(model_input))

    def _array(self, inputs: Any) -> Any:
        if hasattr(inputs, "columns"):
            wanted = self.columns or list(inputs.columns)
            missing = [name for name in wanted if name not in inputs.columns]
            if missing:
                raise ValueError(f"inputs: the table lacks the column {missing[0]!r}, one of {', '.join(wanted)}")
            inputs = inputs[wanted]
        try:
            array = np.asarray(inputs).astype(self.dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(f"inputs: expected numbers ({self.dtype}), got something else ({error})") from None
        given = array.shape[1:]
        if len(given) != len(self.shape) or any(
            want not in (-1, got) for want, got in zip(self.shape, given, strict=True)
        ):
            sizes = ", ".join("any" if size < 0 else str(size) for size in self.shape)
            raise ValueError(f"inputs: expected shape (n, {sizes}), got {array.shape}")
        return array


def _lists(rows: list[list[Any]]) -> Any:
    """A column of lists, whatever their lengths."""
    found = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):  # numpy would make a table of rows of one length
        found[place] = row
    return found


def _load_pyfunc(  # pyright: ignore[reportUnusedFunction]  # by MLflow
    path: str, model_config: dict[str, Any] | None = None
) -> PortableGuard:
    """What MLflow calls with the path of the graph, and with what the MLmodel says beside it: the graph's seal."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"guard: cannot read {path} ({error.strerror}); export the guard again") from None
    return PortableGuard(data, path, seal=(model_config or {}).get(SEAL))
