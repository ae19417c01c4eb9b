"""What a `fit` returns: a frozen dataclass of tensors and plain values, and what all of them can do.

One helper for all of them: to arrays and back, moved, to a safetensors file. A file holds arrays and
plain values only; it never names code, so the reader says which class it expects.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from torch import Tensor

from caveat.errors import DataError
from caveat.files import parse_json
from caveat.tensors import read_with_header, write_tensors

__all__ = ["arrays", "load", "mapped", "rebuild", "save"]

Fitted = TypeVar("Fitted")


def arrays(fitted: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a fitted object into its tensors and its plain values.

    Fields of nested objects get dotted names; a tuple of objects counts them: `parts.0.means`. So do the entries of a
    dict of tensors: `weights.conv1.bias`.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for field in dataclasses.fields(fitted):
        value = getattr(fitted, field.name)
        nested = _nested(value)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif _named(value):
            tensors |= {f"{field.name}.{key}": tensor for key, tensor in value.items()}
        elif nested:
            for name, part in nested.items():
                inner_tensors, inner_values = arrays(part)
                tensors |= {f"{field.name}.{name}{key}": tensor for key, tensor in inner_tensors.items()}
                values |= {f"{field.name}.{name}{key}": plain for key, plain in inner_values.items()}
        else:
            values[field.name] = value
    return tensors, values


def _nested(value: Any) -> dict[str, Any]:
    """The objects inside a field, by the prefix of their fields' names; empty for tensors and plain values."""
    if dataclasses.is_dataclass(value):
        return {"": value}
    if isinstance(value, tuple) and value and all(dataclasses.is_dataclass(part) for part in value):
        return {f"{i}.": part for i, part in enumerate(value)}
    return {}


def _named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, Tensor) for entry in value.values())


def rebuild(cls: type[Fitted], tensors: dict[str, Tensor], values: dict[str, Any]) -> Fitted:
    """Make the object again from what `arrays` gave.

    Raises
    ------
    DataError
        If a field is missing or one too many is there.
    """
    hints = get_type_hints(cls)
    parts: dict[str, Any] = {}
    used: set[str] = set()
    for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]  # cls is a dataclass by contract
        name, kind = field.name, hints[field.name]
        inside = {key for key in (*tensors, *values) if key.startswith(f"{name}.")}
        of_tuple = next((part for part in get_args(kind) if dataclasses.is_dataclass(part)), None)
        if get_origin(kind) is dict:
            parts[name] = _below(tensors, f"{name}.")
        elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
            parts[name] = rebuild(kind, _below(tensors, f"{name}."), _below(values, f"{name}."))
        elif inside and isinstance(of_tuple, type):
            count = 1 + max(int(key.split(".")[1]) for key in inside)
            parts[name] = tuple(
                rebuild(of_tuple, _below(tensors, f"{name}.{i}."), _below(values, f"{name}.{i}.")) for i in range(count)
            )
        elif name in tensors:
            parts[name] = tensors[name]
        elif name in values:
            parts[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
        else:
            raise DataError(f"{cls.__name__}: the artefact lacks {name!r}")
        used |= inside | {name}
    if foreign := (set(tensors) | set(values)) - used:
        raise DataError(f"{cls.__name__}: the artefact holds {sorted(foreign)}, which do not belong to it")
    return cls(**parts)


def _below(entries: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in entries.items() if name.startswith(prefix)}


def mapped(fitted: Fitted, function: Callable[[Tensor], Tensor]) -> Fitted:
    """The same object with `function` applied to every tensor in it."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(fitted):  # pyright: ignore[reportArgumentType]  # a dataclass by contract
        value = getattr(fitted, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = function(value)
        elif _named(value):
            changed[field.name] = {name: function(tensor) for name, tensor in value.items()}
        elif isinstance(value, tuple) and _nested(value):
            changed[field.name] = tuple(mapped(part, function) for part in value)
        elif _nested(value):
            changed[field.name] = mapped(value, function)
    return dataclasses.replace(fitted, **changed)  # pyright: ignore[reportArgumentType]  # as above


def save(fitted: Any, path: str | Path, *, kind: str | None = None) -> None:
    """Write a fitted object to one safetensors file, whole or not at all; `kind` is noted in its header."""
    tensors, values = arrays(fitted)
    header = {"values": json.dumps(values)} | ({} if kind is None else {"kind": json.dumps(kind)})
    write_tensors(path, tensors, header=header)


def load(cls: type[Fitted], path: str | Path) -> Fitted:
    """Read an object of class `cls` from a file that `save` wrote.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of another class.
    """
    tensors, header = read_with_header(path)
    values = parse_json(header.get("values", "{}"), name="path", where=path, constants=True)
    if not isinstance(values, dict):
        raise DataError(f"path: {path} holds no fitted object: its values are a {type(values).__name__}")
    try:
        return rebuild(cls, tensors, values)
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(f"path: {path} holds no {cls.__name__} ({error})") from None
