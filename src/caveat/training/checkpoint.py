"""The state of a training run in one file: tensors as safetensors, the rest as JSON in its header; no code."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

from caveat.errors import CaveatError, DataError
from caveat.files import parse_json, reason
from caveat.tensors import read_with_header, write_tensors

__all__ = ["load", "save", "seconds"]

_SCHEMA = "caveat-training-1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries, lists and tuples of tensors, numbers, strings and None.

    Whenever the process is killed, a whole file is there.

    Raises
    ------
    CaveatError
        If there is something else among them, or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_flatten(state, "", tensors))
    write_tensors(path, tensors, header={"schema": _SCHEMA, "state": text})


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote; tensors on the CPU.

    Raises
    ------
    DataError
        If the file cannot be read, or is something else.
    """
    tensors, header = read_with_header(path, name="checkpoint")
    if header.get("schema") != _SCHEMA:
        raise DataError(f"checkpoint: {path} is not a training checkpoint of this version")
    state = parse_json(header.get("state", ""), name="checkpoint", where=path, constants=True)
    try:
        return _restore(state, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"checkpoint: {path} is damaged ({reason(error)}); remove it to train anew") from None


def seconds(path: Path) -> float:
    """How long the training of a finished run took.

    Raises
    ------
    DataError
        As `load`, and if no training stopped there.
    """
    try:
        return float(sum(load(path)["history"]["seconds"]))
    except (KeyError, TypeError):
        raise DataError(f"checkpoint: {path} does not say how long its training took; train anew") from None


def _flatten(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON: numbers, strings and None as they are, everything else as `{kind: content}`."""
    if isinstance(value, Tensor):
        tensors[key] = value
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
