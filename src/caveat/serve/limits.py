"""What a request may cost, and the gate that holds it to that before anything else looks at it."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["OPEN", "Gate", "Limits", "RequestError", "error"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: they say nothing of the guard."""
DISCARDED = 1 << 26
"""Bytes of a body that is too large which are read and forgotten, so that its sender can read why it is refused."""
LINGER = 1.0
"""Seconds that this may take."""
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


@dataclass(frozen=True)
class Limits:
    """What requests may cost, one and all together."""

    body: int = 8 << 20
    """Bytes of a request."""
    batch: int = 64
    """Inputs of a request, and of one pass of the network."""
    wait: float = 0.002
    """Seconds that an input waits for others which are on their way, to share a pass with them."""
    queue: int = 256
    """Requests that wait for the network; more are refused with 429."""
    concurrency: int = 512
    """Requests at once, those that are still being sent among them; more are refused with 429."""
    timeout: float = 30.0
    """Seconds for the sending of a request, and again for its answer."""


class RequestError(Exception):
    """A request that is not answered with a verdict: status, a code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def error(path: str, code: str, message: str) -> dict[str, Any]:
    """The body of a refusal; the Open Inference Protocol wants `error` to be a text."""
    if path.startswith("/v2"):
        return {"error": message, "code": code}
    return {"error": {"code": code, "message": message}}


class Gate:
    """In front of an application: the token, the size and speed of bodies, and how many requests there are at once.

    A body is counted as it comes, whatever its header says, and is handed on as a whole.
    """

    def __init__(self, app: Application, limits: Limits, token: str | None = None) -> None:
        self.app, self.limits = app, limits
        self._token = None if token is None else token.encode()
        self.now = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        self.now += 1
        try:
            body = await self._admitted(scope, receive)
        except RequestError as refused:
            await _answer(scope, _with_headers(send), refused)
        else:
            await self.app(scope, _replayed(body, receive), _with_headers(send))
        finally:
            self.now -= 1
        return None

    async def _admitted(self, scope: Message, receive: Receive) -> bytes:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self.now > self.limits.concurrency:
            raise RequestError(
                429, "busy", f"{self.limits.concurrency} requests are being answered: try again in a second"
            )
        if self._token is not None and scope["path"] not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
                raise RequestError(
                    401, "token", "expected the header  Authorization: Bearer TOKEN  with the service's token"
                )
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and int(told[:20]) <= self.limits.body:
            try:
                body, more = await asyncio.wait_for(self._body(receive), self.limits.timeout)
            except TimeoutError:
                wanted = f"the request was not sent within {self.limits.timeout:g} seconds"
                raise RequestError(408, "slow", wanted) from None
        else:
            body, more = None, True
        if body is not None:
            return body
        if more:
            await _discard(receive)
        raise RequestError(
            413, "too_large", f"the body has more than {self.limits.body:,} bytes, the most that is taken"
        )

    async def _body(self, receive: Receive) -> tuple[bytes | None, bool]:
        """The body, or None where it is too large; and whether there is more of it."""
        parts: list[bytes] = []
        count, more = 0, True
        while more and count <= self.limits.body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError(400, "disconnected", "the request ended before its body did")
            parts.append(message.get("body", b""))
            count += len(parts[-1])
            more = bool(message.get("more_body", False))
        return (b"".join(parts) if count <= self.limits.body else None), more


async def _discard(receive: Receive) -> None:
    async def read() -> None:
        count = 0
        while count < DISCARDED:
            message = await receive()
            count += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return

    try:
        await asyncio.wait_for(read(), LINGER)
    except TimeoutError:
        return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What gives the whole body as one message, and then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name for name, _ in message.get("headers", ())}
            message["headers"] = [*message.get("headers", ()), *(pair for pair in HEADERS if pair[0] not in there)]
        await send(message)

    return sending


async def _answer(scope: Message, send: Send, refused: RequestError) -> None:
    from starlette.responses import JSONResponse

    # the rest of the body, if there is one, is not read: the connection cannot be used again
    headers = {"connection": "close"}
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refused.status == 429:
        headers["retry-after"] = "1"
    content = error(scope["path"], refused.code, refused.message)
    response = JSONResponse(content, status_code=refused.status, headers=headers)

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await response(scope, nothing, send)
