"""A posterior on disk: one safetensors file, with its kind and plain values as JSON in the header."""

from pathlib import Path
from typing import Any

from caveat import fitted
from caveat.errors import DataError, OptionError
from caveat.files import parse_json
from caveat.posteriors.dropout import Dropout
from caveat.posteriors.ensemble import Ensemble
from caveat.posteriors.laplace import Laplace
from caveat.posteriors.perturbation import Perturbation
from caveat.posteriors.swag import Swag
from caveat.posteriors.tradi import Tradi
from caveat.tensors import read_header

__all__ = ["KINDS", "load", "save"]

KINDS: dict[str, type] = {
    "dropout": Dropout,
    "ensemble": Ensemble,
    "laplace": Laplace,
    "perturbation": Perturbation,
    "swag": Swag,
    "tradi": Tradi,
}
"""A file says its kind by one of these names; it never names code."""


def save(posterior: Any, path: str | Path) -> None:
    """Write a posterior, whole or not at all.

    Raises
    ------
    OptionError
        If it is no posterior of ours.
    """
    kind = next((name for name, cls in KINDS.items() if type(posterior) is cls), None)
    if kind is None:
        raise OptionError(f"posterior: expected one of {', '.join(KINDS)}, got a {type(posterior).__name__}")
    fitted.save(posterior, path, kind=kind)


def load(path: str | Path) -> Any:
    """Read what `save` wrote; tensors on the CPU.

    Raises
    ------
    DataError
        If the file is missing, damaged, or no posterior.
    """
    kind = parse_json(read_header(path).get("kind", "null"), name="path", where=path)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"path: {path} is no posterior: its kind is {kind!r}, expected one of {', '.join(KINDS)}")
    return fitted.load(KINDS[kind], path)
