"""The state of a training run in one file: tensors as safetensors, the rest as JSON in its header; no code."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from caveat.errors import CaveatError, DataError

__all__ = ["load", "save"]

_SCHEMA = "caveat-training-1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries, lists and tuples of tensors, numbers, strings and None.

    Written under another name first, then renamed: whenever the process is killed, a whole file is there.

    Raises
    ------
    CaveatError
        If there is something else among them.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_flatten(state, "", tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"schema": _SCHEMA, "state": text})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote; tensors on the CPU.

    Raises
    ------
    DataError
        If the file cannot be read, or is something else.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("schema") != _SCHEMA:
                raise DataError(f"checkpoint: {path} is not a training checkpoint of this version")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- it is no dictionary
        return _restore(json.loads(metadata["state"]), tensors)
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(f"checkpoint: cannot read {path} ({str(error) or type(error).__name__})") from None


def _flatten(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON: numbers, strings and None as they are, everything else as `{kind: content}`."""
    if isinstance(value, Tensor):
        tensors[key] = value.detach().to("cpu").contiguous().clone()  # cloned: tied weights may not share memory
        return {"tensor": key}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        kind = "counter" if isinstance(value, Counter) else "dict"
        return {kind: [[name, _flatten(item, f"{key}/{name}", tensors)] for name, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_flatten(item, f"{key}/{position}", tensors) for position, item in enumerate(value)]
        return {"list": items} if isinstance(value, list) else {"tuple": items}
    raise CaveatError(
        f"checkpoint: {key.strip('/')} is a {type(value).__name__}: only tensors and plain values are kept"
    )


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind in ("dict", "counter"):
        items = {name: _restore(item, tensors) for name, item in content}
        return Counter(items) if kind == "counter" else items
    items = [_restore(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
