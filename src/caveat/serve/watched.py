"""The monitor of a service: told of every verdict, its state kept in a file where a folder is named."""

import logging
import time
from pathlib import Path

from caveat.files import write_atomically
from caveat.guard.monitor import Monitor, kept
from caveat.records.base import stamp
from caveat.records.monitor import Kept, State
from caveat.serve.served import Answer

__all__ = ["STATE", "Watched"]

STATE = "service.json"
OFTEN = 1.0
"""Seconds between two writings of the state."""


class Watched:
    """A monitor that goes on from what a folder holds, and writes there at most once a second and at the end.

    A process that is killed forgets the verdicts of its last second.
    """

    def __init__(self, monitor: Monitor, folder: Path | None = None, *, digest: str = "") -> None:
        self._monitor, self._digest = monitor, digest
        self._path = None if folder is None else folder / STATE
        self._written = 0.0
        if self._path is not None:
            there = kept(
                self._path, Kept, guard=digest, name="--monitor", what="a service's monitor",
                remedy="name another folder",
            )  # fmt: skip
            if there is not None:
                monitor.resume(there.state)

    @property
    def state(self) -> State:
        """What the monitor knows."""
        return self._monitor.state

    def update(self, verdict: Answer) -> None:
        """Take the verdicts of a pass; an alarm is said once in the log."""
        for alarm in self._monitor.update(verdict.score.cpu().numpy(), verdict.accepted.cpu().numpy()):
            told = dict(zip(self.state.bets, self._monitor.sentences(), strict=True))[alarm.watched]
            logging.getLogger(__name__).warning("%s", told)
        if time.monotonic() - self._written > OFTEN:
            self.save()

    def save(self) -> None:
        """Write the state, whole or not at all."""
        if self._path is not None:
            now = Kept(**stamp(), guard=self._digest, state=self.state)
            write_atomically(self._path, now.model_dump_json())
        self._written = time.monotonic()
