"""What a monitor of a guard knows, as JSON; no torch."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from caveat.records.base import Part, digest

__all__ = ["Alarm", "Bet", "Kept", "Point", "Spoke", "State", "Watched", "Watching"]

Watched = Literal["scores", "abstentions", "errors"]


class Alarm(Part):
    """A claim that was given up."""

    watched: Watched
    at: int
    """How many inputs (of errors, labels) had been seen."""
    since: int
    """When the capital began to rise: an estimate of when the change began, counted alike."""


class Bet(Part, frozen=False):
    """One claim that is bet against."""

    needed: float
    """Logarithm of the capital that raises an alarm."""
    bound: float | None
    """The share that is claimed not to be exceeded; None of scores."""
    seen: int = 0
    capital: float = 0.0
    """Its logarithm: the e-value of the evidence against the claim, 0 at first."""
    lowest: float = 0.0
    lowest_at: int = 0
    weights: list[float]
    hits: int = 0
    """Abstentions or errors so far; 0 of scores."""


class Point(Part):
    """The state after some inputs, for a picture."""

    seen: int
    capital: dict[Watched, float]
    accepted: float
    """Share of all inputs so far."""


class State(Part, frozen=False):
    """All that a monitor knows beside the guard, as JSON: after a stop it goes on as if there had been none.

    Its JSON carries the SHA-256 of all else in it, `seal`: evidence that was altered would be believed.
    """

    schema_version: Literal[1] = 1
    level: float
    seed: int
    counts: list[int]
    bets: dict[Watched, Bet]
    alarms: list[Alarm] = Field(default_factory=list[Alarm])
    stride: int = 1
    history: list[Point] = Field(default_factory=list[Point])

    @model_serializer(mode="wrap")
    def _sealed(self, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        found = plain(self)
        return found | {"seal": digest(found)}

    @model_validator(mode="before")
    @classmethod
    def _unsealed(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "seal" not in data:
            return data
        found = {name: value for name, value in data.items() if name != "seal"}
        if digest(found) != data["seal"]:
            raise ValueError("it was altered after it was written")
        return found

    @property
    def seen(self) -> int:
        """Inputs so far."""
        return self.bets["scores"].seen


class Kept(Part):
    """What stands in a file: a monitor's state, and what it is of, to know that again."""

    schema_version: Literal[1] = 1
    caveat_version: str
    created: str
    guard: str
    """SHA-256 of the guard's manifest."""
    state: State


class Spoke(Part):
    """An input that speaks for a change."""

    index: int
    place: str
    """File or text of the input; empty where it has none."""
    predicted: str
    score: float | None
    """None of an input that holds no numbers."""


class Watching(Part):
    """What was found, for a page and a terminal."""

    state: State
    sentences: list[str]
    """What is known of each claim."""
    fresh: int
    """Verdicts that were not seen before."""
    labelled: int
    model: str
    """How the guard's network was made."""
    spoke: list[Spoke]
    """Highest scores first."""
