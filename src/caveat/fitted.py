"""What a `fit` returns: a frozen dataclass of tensors and plain values, and what all of them can do.

One helper for all of them: to arrays and back, to another device, to a safetensors file. A file holds arrays and
plain values only; it never names code, so the reader says which class it expects.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from caveat.errors import DataError

__all__ = ["arrays", "load", "rebuild", "save", "to"]

Fitted = TypeVar("Fitted")


def arrays(fitted: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a fitted object into its tensors and its plain values; fields of nested objects get dotted names."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for field in dataclasses.fields(fitted):
        value = getattr(fitted, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif dataclasses.is_dataclass(value):
            inner_tensors, inner_values = arrays(value)
            tensors |= {f"{field.name}.{name}": tensor for name, tensor in inner_tensors.items()}
            values |= {f"{field.name}.{name}": plain for name, plain in inner_values.items()}
        else:
            values[field.name] = value
    return tensors, values


def rebuild(cls: type[Fitted], tensors: dict[str, Tensor], values: dict[str, Any]) -> Fitted:
    """Make the object again from what `arrays` gave.

    Raises
    ------
    DataError
        If a field is missing or one too many is there.
    """
    hints = get_type_hints(cls)
    parts: dict[str, Any] = {}
    expected: set[str] = set()
    for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]  # cls is a dataclass by contract
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            prefix = f"{field.name}."
            inner_tensors = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
            inner_values = {name[len(prefix) :]: v for name, v in values.items() if name.startswith(prefix)}
            parts[field.name] = rebuild(kind, inner_tensors, inner_values)
            expected |= {prefix + name for name in (*inner_tensors, *inner_values)}
        elif field.name in tensors:
            parts[field.name] = tensors[field.name]
        elif field.name in values:
            value = values[field.name]
            parts[field.name] = tuple(value) if isinstance(value, list) else value
        else:
            raise DataError(f"{cls.__name__}: the artefact lacks {field.name!r}")
        expected.add(field.name)
    if foreign := (set(tensors) | set(values)) - expected:
        raise DataError(f"{cls.__name__}: the artefact holds {sorted(foreign)}, which do not belong to it")
    return cls(**parts)


def to(fitted: Fitted, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Fitted:
    """The same object on another device, its floating-point tensors in another dtype."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(fitted):  # pyright: ignore[reportArgumentType]  # a dataclass by contract
        value = getattr(fitted, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed[field.name] = to(value, device=device, dtype=dtype)
    return dataclasses.replace(fitted, **changed)  # pyright: ignore[reportArgumentType]  # as above


def save(fitted: Any, path: str | Path) -> None:
    """Write a fitted object to one safetensors file, under a temporary name first."""
    tensors, values = arrays(fitted)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        temporary.write_bytes(to_bytes(plain, metadata={"values": json.dumps(values)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(cls: type[Fitted], path: str | Path) -> Fitted:
    """Read an object of class `cls` from a file that `save` wrote.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of another class.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            values = json.loads((file.metadata() or {}).get("values", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"path: cannot read {path} as safetensors ({error})") from None
    return rebuild(cls, tensors, values)
