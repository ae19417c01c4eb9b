"""What the records of all tasks but classification have in common; no torch."""

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, ValidationError

from caveat.errors import DataError
from caveat.files import read_json, write_atomically
from caveat.records.base import Estimate, Number, Part, task_of
from caveat.records.record import Curve, Detection, SetSummary

__all__ = ["Kept", "Preview", "TaskRecord"]

SCHEMA = 1
Kind = TypeVar("Kind", bound="TaskRecord")


class Kept(Part):
    """What becomes of the mean error if the samples with the highest scores are rejected."""

    score: str
    curve: Curve
    """x: share of test samples accepted; y: the error among them."""
    at_80: Number
    """The error among the 80 % with the lowest scores."""


class Preview(Part):
    """What a guard with this score and threshold does with every set."""

    score: str
    keep: Number
    """Share of in-distribution inputs that it was asked to accept."""
    threshold: Number
    accepted: dict[str, Estimate]
    """Per set, the share that is accepted."""
    error: Number
    """The error among the accepted test samples, as `error_of_all` of all of them."""
    error_of_all: Number
    coverage: Estimate | None = None
    """Among the accepted test samples, of regression the share of the guard's intervals that hold the label; of
    multi-label networks the mean share of a sample's labels that are found."""


class TaskRecord(Part):
    """One model, its data, and what was found; a task adds its own parts."""

    TASK: ClassVar[str]

    schema_version: int = SCHEMA
    task: Any
    caveat_version: str
    name: str = ""
    """What the page is called by; the model's name where empty."""
    created: str
    """ISO 8601, UTC."""
    settings: dict[str, str | int | float | bool | list[str] | list[float] | None]
    model: str
    parameters: int
    observations: str = ""
    """SHA-256 that names the outputs kept beside this record; empty if none are kept."""
    sets: list[SetSummary]
    split: str
    """In words: what was fitted on which part, and judged on which."""
    detections: list[Detection] = Field(default_factory=list[Detection])
    warnings: list[str] = Field(default_factory=list)
    """Signs that the model or its data were set up wrongly."""
    notes: list[str] = Field(default_factory=list)
    seconds: dict[str, Number] = Field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the record as JSON: to a temporary name first, then renamed."""
        write_atomically(Path(path), self.model_dump_json())

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """Read a record from `record.json` or the folder that holds it.

        Raises
        ------
        DataError
            If the file is missing, is not JSON, or is no record of this task and schema.
        """
        place = Path(path)
        place = place / "record.json" if place.is_dir() else place
        found: Any = read_json(place, name="record")
        task, version = task_of(found), found.get("schema_version") if isinstance(found, dict) else None
        if task != cls.TASK or version != SCHEMA:
            raise DataError(
                f"record: {place} is no record of {cls.TASK}, schema {SCHEMA}, but of {task or 'something else'}, "
                f"schema {version!r}; audit the model again with  caveat audit --task {cls.TASK}"
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"record: {place} is no record of {cls.TASK}: {where}: {first['msg']}") from None
