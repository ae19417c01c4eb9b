"""The monitor of a service: told of every verdict, its state kept in a file where a folder is named."""

import logging
import time
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from caveat.errors import DataError
from caveat.files import read_json, write_atomically
from caveat.guard.monitor import Monitor
from caveat.guard.verdict import Verdict
from caveat.records.base import Part, stamp
from caveat.records.monitor import State

__all__ = ["STATE", "Watched"]

STATE = "service.json"
OFTEN = 1.0
"""Seconds between two writings of the state."""


class Kept(Part):
    """What stands in the file."""

    schema_version: Literal[1] = 1
    caveat_version: str
    created: str
    guard: str
    """SHA-256 of the guard's manifest."""
    state: State


class Watched:
    """A monitor that goes on from what a folder holds, and writes there at most once a second and at the end.

    A process that is killed forgets the verdicts of its last second.
    """

    def __init__(self, monitor: Monitor, folder: Path | None = None, *, digest: str = "") -> None:
        self._monitor, self._digest = monitor, digest
        self._path = None if folder is None else folder / STATE
        self._written = 0.0
        if self._path is not None and self._path.exists():
            monitor.resume(_kept(self._path, digest).state)

    @property
    def state(self) -> State:
        """What the monitor knows."""
        return self._monitor.state

    def update(self, verdict: Verdict) -> None:
        """Take the verdicts of a pass; an alarm is said once in the log."""
        for alarm in self._monitor.update(verdict.score.cpu().numpy(), verdict.accepted.cpu().numpy()):
            told = dict(zip(self.state.bets, self._monitor.sentences(), strict=True))[alarm.watched]
            logging.getLogger(__name__).warning("%s", told)
        if time.monotonic() - self._written > OFTEN:
            self.save()

    def save(self) -> None:
        """Write the state, whole or not at all."""
        if self._path is not None:
            kept = Kept(**stamp(), guard=self._digest, state=self.state)
            write_atomically(self._path, kept.model_dump_json())
        self._written = time.monotonic()


def _kept(path: Path, digest: str) -> Kept:
    try:
        kept = Kept.model_validate(read_json(path, name="--monitor"))
    except ValidationError as error:
        raise DataError(
            f"--monitor: {path} is no state of a service's monitor ({error.errors()[0]['msg']}); name another folder"
        ) from None
    if kept.guard != digest:
        raise DataError(
            f"--monitor: {path} watches another guard, or this one before it was changed; name another folder"
        )
    return kept
