"""A scene of a dense audit: what was seen, what was answered, how sure and how unsure. Part of the record; no torch."""

from typing import Annotated

from pydantic import Field

from caveat.records.base import Part

__all__ = ["Scene", "Scenes"]


class Scene(Part):
    """One picture and the maps that go with it, each the base64 of a PNG."""

    index: int
    """Position in its set."""
    accuracy: float | None
    """Share of its known pixels that are right; None if it has none."""
    ood: float
    """Share of its labelled pixels that belong to an OOD kind."""
    picture: str
    labels: str
    prediction: str
    confidence: str
    """Light: sure."""
    uncertainty: str
    """Light: unsure."""


class Scenes(Part):
    """The scenes shown, and how to read them."""

    score: str
    """Whose values the uncertainty maps show."""
    low: float
    high: float
    """Values of the score that are black and white."""
    colours: dict[str, Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]]
    """Of each class and OOD kind."""
    shown: list[Scene]
