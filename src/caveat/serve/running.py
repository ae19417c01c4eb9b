"""A service on a port: one process, that answers all it has accepted before it ends."""

import asyncio
import logging
import signal
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from caveat.errors import CaveatError
from caveat.files import reason
from caveat.serve.limits import Limits

__all__ = ["listening", "run", "server"]

CONNECTIONS = 1000
"""Open at once; more are answered with 503."""
HEAD = 10.0
"""Seconds in which the head of a request must come."""
HEADERS = 16 << 10
"""Bytes of a head."""


class Patient(H11Protocol):
    """As uvicorn's, but a connection on which no whole head comes is closed: uvicorn would wait for ever."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn's own
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD, transport.close)

    def data_received(self, data: bytes) -> None:
        """Wait no more where the head is whole; wait where another has begun."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound, before anything is loaded for it.

    Raises
    ------
    CaveatError
        If it cannot be.
    """
    if not host:  # which would be every address of this machine
        raise CaveatError("--host: expected an address, got none; 127.0.0.1 is this machine alone")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with the protocol named, asyncio sends small answers at once: without, each waits 40 ms for an acknowledgement
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, UnicodeError) as error:
        made.close()
        raise CaveatError(
            f"--host, --port: cannot listen on {host}:{port} ({reason(error)}); name another port, or an address of "
            "this machine"
        ) from None
    return made


def server(app: Any, limits: Limits) -> uvicorn.Server:
    """What listens for an application."""
    config = uvicorn.Config(
        app, http=Patient, ws="none", lifespan="on", log_config=None, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS, backlog=CONNECTIONS,
        h11_max_incomplete_event_size=HEADERS, timeout_graceful_shutdown=round(2 * limits.timeout) + 1,
    )  # fmt: skip
    return uvicorn.Server(config)


def run(app: Any, bound: socket.socket, limits: Limits) -> None:
    """Answer until the process is told to end; then what was accepted is answered first."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    # uvicorn raises the signal again when it is done: to have stopped as one was told is no failure
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server(app, limits).run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)
        bound.close()
