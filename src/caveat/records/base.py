"""What every part of a record is: fixed once made, every number finite and short; no torch."""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict

from caveat import __version__

__all__ = ["Estimate", "Number", "Part", "Stamp", "digest", "stamp", "task_of"]


def _six_digits(value: object) -> float:
    try:
        return float(f"{value:.6g}")
    except TypeError:  # which pydantic would let through as an error of the program
        raise ValueError(f"expected a number, got {type(value).__name__}") from None


Number = Annotated[float, BeforeValidator(_six_digits)]
"""A finite number kept to six significant digits: enough for any reader, and it keeps the page small."""


class Part(BaseModel):
    """Fixed once made, no field too many, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stamp(TypedDict):
    """What every record, guard and study says of its making."""

    caveat_version: str
    created: str
    """Date and time in UTC, to the second, as ISO 8601 writes them."""


def stamp() -> Stamp:
    """Made now, by this version."""
    return Stamp(caveat_version=__version__, created=datetime.now(UTC).isoformat(timespec="seconds"))


def digest(plain: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON holds, whatever its order and spaces: by which what was written is known again."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=True).encode()).hexdigest()


class Estimate(Part):
    """A value with its 95 % interval; without ends where too few samples are there to give one."""

    value: Number
    low: Number | None
    high: Number | None

    @property
    def lowest(self) -> float:
        """The low end, minus infinity where none is given: nothing is then excluded."""
        return -math.inf if self.low is None else self.low

    @property
    def highest(self) -> float:
        """The high end, infinity where none is given."""
        return math.inf if self.high is None else self.high


def task_of(found: Any) -> str:
    """The task of a record as JSON holds it; classification where none is named, empty where it is no record."""
    if not isinstance(found, dict) or "study" in found:
        return ""
    return str(found.get("task", "classification"))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
