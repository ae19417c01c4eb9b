"""What a study found: published figures beside ours, as validated JSON. Imports no torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from caveat.errors import DataError
from caveat.files import read_json, write_atomically
from caveat.records.base import Number, Part

__all__ = ["Cell", "Claim", "Figure", "Findings", "Row", "Scale", "Shot", "Table", "cell"]

SCHEMA = 1
Scale = Literal["smoke", "small", "full"]
"""`smoke`: seconds, to see that all works; `small`: minutes on two cores; `full`: as published, or the largest scale
that the study's text says can be run."""


class Cell(Part):
    """One figure: ours, its spread over seeds, and the published one where it is known."""

    value: Number | None = None
    """Mean over seeds; None where we have none (or it is infinite: then `text` says so)."""
    std: Number | None = None
    """Standard deviation over seeds; None for a single run."""
    published: str = ""
    """As printed in the source; empty where the source gives none."""
    text: str = ""
    """Shown instead of `value`."""


class Row(Part):
    """One method, set or setting."""

    label: str
    cells: list[Cell]


class Table(Part):
    """A table as the source has it: our figure over the published one in every cell."""

    title: str
    first: str = ""
    """Heading of the labels' column."""
    columns: list[str]
    rows: list[Row]
    digits: int = 1
    """Decimals shown."""
    note: str = ""


class Figure(Part):
    """A plot, as a Vega-Lite specification."""

    title: str
    spec: dict[str, Any]
    caption: str = ""


class Shot(Part):
    """A picture made by the study."""

    title: str
    png: str
    """Base64 of a PNG."""
    caption: str = ""


class Claim(Part):
    """What the source says, and what we saw."""

    claim: str
    verdict: Literal["confirmed", "partly", "refuted", "untested"]
    found: str
    """In words, with the figures."""


class Findings(Part):
    """One published experiment, reproduced."""

    schema_version: Literal[1] = SCHEMA
    caveat_version: str
    created: str
    """ISO 8601, UTC."""
    study: str
    title: str
    source: str
    scale: Scale
    seeds: list[int]
    settings: dict[str, str | int | float | bool | None]
    reduced: list[str] = Field(default_factory=list)
    """What differs from the published experiment, and why."""
    claims: list[Claim] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    figures: list[Figure] = Field(default_factory=list)
    shots: list[Shot] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    seconds: dict[str, Number] = Field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write as JSON: to a temporary name first, then renamed."""
        write_atomically(Path(path), self.model_dump_json())

    @classmethod
    def load(cls, path: str | Path) -> "Findings":
        """Read what a study found.

        Raises
        ------
        DataError
            If the file is missing, is not JSON, or is not of this schema.
        """
        try:
            return cls.model_validate(read_json(Path(path), name="findings"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DataError(f"findings: {path} is not of schema {SCHEMA}: {place}: {first['msg']}") from None


def cell(values: list[float], published: str = "") -> Cell:
    """Mean and standard deviation (n - 1) of one figure over seeds.

    >>> cell([1.0, 3.0], "2.1 ± 0.3")
    Cell(value=2.0, std=1.41421, published='2.1 ± 0.3', text='')
    """
    count = len(values)
    mean = sum(values) / count
    spread = (sum((value - mean) ** 2 for value in values) / (count - 1)) ** 0.5 if count > 1 else None
    return Cell(value=mean, std=spread, published=published)
