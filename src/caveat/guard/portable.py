"""An exported guard where neither Caveat nor torch is installed.

This file stands alone, on numpy and onnxruntime: `mlflow.write` puts a copy of it beside a graph. MLflow loads that.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BLANK", "INPUTS", "OUTPUTS", "SEAL", "PortableGuard", "sealed"]

INPUTS = "inputs"
"""Name of what a graph takes beside the threshold."""
OUTPUTS = ("label", "predicted", "probabilities", "confidence", "score", "p_value", "accepted", "aleatoric")
"""What a graph gives, in this order; a posterior's gives `epistemic` last."""
SEAL = "sha256"
"""A key of the metadata: the SHA-256 of the file's bytes, with zeros in its own place."""
BLANK = 64 * "0"
REASONS = ("accepted", "untrusted", "invalid input")
_ENTRY = re.compile(rb"\n\x06sha256\x12@([0-9a-f]{64})")
"""The seal among the metadata, as ONNX writes texts: each after its length."""


def sealed(data: bytes, seal: str = "") -> str:
    """The SHA-256 that the bytes of a graph must name; `seal` is what they name where they are sealed already."""
    return hashlib.sha256(data.replace(seal.encode(), BLANK.encode()) if seal else data).hexdigest()


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
        if set(self.names) - {"epistemic"} != set(OUTPUTS) or set(taken) != {INPUTS}:
            raise ValueError(
                f"guard: {where} was exported by Caveat {self.about.get('caveat_version')} in a form that this code "
                "does not read; export the guard again, with the version that made this code"
            )
        kind = str(taken[INPUTS].type)[len("tensor(") : -1]
        self.dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
        self.shape = tuple(size if isinstance(size, int) else -1 for size in taken[INPUTS].shape[1:])
        """Of one input; -1 where any size will do."""
        self.classes: list[str] = json.loads(self.about["classes"])
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
        predicted = np.where(unreadable, -1, raw["predicted"])
        names = np.array([*self.classes, None], dtype=object)
        epistemic = {name: raw[name] for name in ("epistemic",) if name in raw}
        return {
            "label": raw["label"],
            "accepted": raw["accepted"],
            "predicted": predicted,
            "predicted_name": names[predicted],
            **{name: raw[name] for name in ("confidence", "score", "p_value", "aleatoric")},
            **epistemic,
            "reason": np.array(REASONS, dtype=object)[np.where(unreadable, 2, np.where(raw["accepted"], 0, 1))],
        }

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """Verdicts as a pandas DataFrame, one row an input: what MLflow calls.

        `label` is the class, -1 where the guard abstains; `predicted` and `predicted_name` the class in any case (-1
        and None where the input cannot be read); `accepted`; `confidence`; `score` (higher = less trustworthy);
        `p_value`; `aleatoric` and of a posterior `epistemic` uncertainty in nats; `reason`: accepted, untrusted or
        invalid input.
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


def _load_pyfunc(  # pyright: ignore[reportUnusedFunction]  # by MLflow
    path: str, model_config: dict[str, Any] | None = None
) -> PortableGuard:
    """What MLflow calls with the path of the graph, and with what the MLmodel says beside it: the graph's seal."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"guard: cannot read {path} ({error.strerror}); export the guard again") from None
    return PortableGuard(data, path, seal=(model_config or {}).get(SEAL))
