"""The application: which path answers what."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Path, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from torch import Tensor

from caveat import __version__
from caveat.errors import CaveatError
from caveat.serve import inputs, page, protocol, spoken
from caveat.serve.batching import Batcher
from caveat.serve.limits import Application, Gate, Limits, Message, Receive, RequestError, Send, error
from caveat.serve.metrics import Metrics
from caveat.serve.served import MOST, Answer, Served, neighbours, rows
from caveat.serve.watched import Watched

__all__ = ["application"]

READERS = 2
"""Threads that decode: each may hold a picture of 16 million pixels."""
CODES = {404: "no_such_path", 405: "method"}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
Found = TypeVar("Found")


class Service:
    """What lives as long as the application: the queue of the network, the threads that decode, counters, monitor."""

    def __init__(self, served: Served, name: str, limits: Limits, watched: Watched | None) -> None:
        self.served, self.name, self.limits, self.watched = served, name, limits, watched
        self.batcher = Batcher(served.ask, limits, self._seen)
        self.nearest = None if served.nearest is None else Batcher(served.nearest, limits)
        self.metrics = Metrics(served, watched, lambda: self.batcher.depth)
        self._readers = ThreadPoolExecutor(READERS, "caveat-reader")

    def _seen(self, verdict: Answer) -> None:
        self.metrics.verdicts(verdict)
        if self.watched is not None:
            self.watched.update(verdict)

    async def read(self, reader: Callable[[], Found]) -> Found:
        """Turn bytes into inputs beside the loop, which goes on to answer others."""
        loop = asyncio.get_running_loop()
        with self.batcher.coming():
            try:
                return await asyncio.wait_for(loop.run_in_executor(self._readers, reader), self.limits.timeout)
            except TimeoutError:
                raise RequestError(429, "busy", "many requests wait to be decoded: try again in a second") from None

    async def close(self) -> None:
        """Answer what was accepted, and keep what the monitor knows."""
        await asyncio.to_thread(self.batcher.close)
        if self.nearest is not None:
            await asyncio.to_thread(self.nearest.close)
        self._readers.shutdown()
        if self.watched is not None:
            self.watched.save()


def application(
    served: Served,
    *,
    name: str = "guard",
    limits: Limits | None = None,
    token: str | None = None,
    watched: Watched | None = None,
    docs: bool = False,
) -> FastAPI:
    """An ASGI application that answers for a guard under the name `name`.

    Parameters
    ----------
    token
        What every request must bring, but those for health and for the page.
    watched
        A monitor that is told of every verdict.
    docs
        Whether `/openapi.json` says what there is.
    """
    limits = limits or Limits()
    service = Service(served, name, limits, watched)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await service.close()

    made = FastAPI(
        title="Caveat", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        openapi_url="/openapi.json" if docs else None, redirect_slashes=False,
    )  # fmt: skip
    _refusals(made)
    _health(made, service, _page(served, token))
    _verdicts(made, service)
    _models(made, service)
    made.add_middleware(Gate, limits=limits, token=token)
    made.add_middleware(Counted, metrics=service.metrics)
    return made


def _page(served: Served, token: str | None) -> tuple[str, str]:
    return page.render(
        served.task, picture=served.picture is not None, token=token is not None, nearest=served.nearest is not None
    )


class Counted:
    """Around everything else: counts requests and their seconds, those that were refused among them."""

    def __init__(self, app: Application, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand on, and count the answer."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # never the path itself: anybody may invent some
            self.metrics.request(route, status, time.perf_counter() - begun)
        return None


def _refusals(made: FastAPI) -> None:
    def answer(request: Request, status: int, code: str, message: str) -> JSONResponse:
        headers = {"retry-after": "1"} if status == 429 else None
        return JSONResponse(error(request.url.path, code, message), status_code=status, headers=headers)

    def refused(request: Request, found: Exception) -> JSONResponse:
        if isinstance(found, RequestError):
            return answer(request, found.status, found.code, found.message)
        if isinstance(found, CaveatError):
            return answer(request, 422, "inputs", str(found))
        if isinstance(found, HTTPException):
            return answer(request, found.status_code, CODES.get(found.status_code, "request"), str(found.detail))
        logging.getLogger(__name__).error("a request failed", exc_info=found)
        return answer(request, 500, "internal", "the service failed; its log says why")

    for kind in (RequestError, CaveatError, HTTPException, Exception):
        made.add_exception_handler(kind, refused)


def _health(made: FastAPI, service: Service, shown: tuple[str, str]) -> None:
    html, policy = shown

    @made.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(html, headers={"content-security-policy": f"{policy}; frame-ancestors 'none'"})

    @made.get("/healthz", responses=spoken.ALIVE)
    async def alive() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"status": "alive"})

    @made.get("/readyz", responses=spoken.READY)
    async def ready() -> JSONResponse:
        """Whether the guard answers; 503 where it does not, or is being stopped."""
        return JSONResponse({"ready": service.batcher.working}, status_code=200 if service.batcher.working else 503)

    @made.get("/metrics", responses=spoken.METRICS)
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.metrics.text(), media_type=PROMETHEUS)


def _verdicts(made: FastAPI, service: Service) -> None:
    served = service.served

    @made.post("/v1/verdict", responses=spoken.verdicts(served.task), openapi_extra=spoken.body(served))
    async def verdict(request: Request) -> JSONResponse:
        """Answer or abstain for every picture or row of an array."""
        count = _nearest(request.query_params.get("nearest"), served)
        given = await service.read(await _reader(request, served))
        verdicts = rows(await service.batcher(given))
        if count and service.nearest is not None:
            near = await asyncio.to_thread(neighbours, await service.nearest(given), served.classes, count)
            verdicts = [{**one, "nearest": found} for one, found in zip(verdicts, near, strict=True)]
        return JSONResponse({"verdicts": verdicts, **served.about})


def _nearest(asked: str | None, served: Served) -> int:
    """How many known examples a request wants."""
    if asked is None:
        return 0
    if not (asked.isascii() and asked.isdecimal() and int(asked[:4]) <= MOST and len(asked) <= 4):
        raise RequestError(422, "nearest", f"nearest: expected a whole number from 0 to {MOST}")
    if int(asked) and served.nearest is None:
        raise RequestError(
            422, "nearest", "nearest: this guard keeps no known examples; fit it with --examples, or leave this out"
        )
    return int(asked)


async def _reader(request: Request, served: Served) -> Callable[[], Tensor]:
    """What makes inputs of a request's body, by its content type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind in inputs.PICTURES:
        return lambda: inputs.pictures([body], served)
    if kind in inputs.NPY:
        return lambda: inputs.tensor(inputs.array_of_npy(body), served)
    if kind == inputs.JSON:
        return lambda: inputs.tensor(inputs.array_of_body(body), served, typed=False)
    if kind == "multipart/form-data":
        files = await _files(request)
        return lambda: inputs.pictures(files, served)
    known = ", ".join((*inputs.PICTURES, "multipart/form-data", inputs.JSON, *inputs.NPY))
    raise RequestError(415, "content_type", f"content-type: expected one of {known}")


async def _files(request: Request) -> list[bytes]:
    async with request.form(max_files=16, max_fields=16) as form:
        return [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]


def _models(made: FastAPI, service: Service) -> None:
    named = Path(json_schema_extra={"enum": [service.name]})

    def check(name: str, version: str) -> None:
        if (name, version) != (service.name, "1"):
            raise RequestError(
                404, "no_such_model", f"there is no such model; the only one is {service.name!r}, version 1"
            )

    @made.get("/v2", responses=spoken.ANY)
    async def server() -> JSONResponse:
        return JSONResponse(protocol.server())

    @made.get("/v2/health/live", responses=spoken.ANY)
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @made.get("/v2/health/ready", responses=spoken.READY)
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": service.batcher.working}, status_code=200 if service.batcher.working else 503)

    @made.get(MODEL, responses=spoken.MODEL)
    @made.get(VERSION, responses=spoken.MODEL)
    async def model(name: str = named, version: str = "1") -> JSONResponse:
        check(name, version)
        return JSONResponse(protocol.model(name, service.served))

    @made.get(f"{VERSION}/ready", responses=spoken.MODEL)
    @made.get(f"{MODEL}/ready", responses=spoken.MODEL)
    async def model_ready(name: str = named, version: str = "1") -> JSONResponse:
        check(name, version)
        return JSONResponse({"name": name, "ready": service.batcher.working})

    @made.post(f"{VERSION}/infer", responses=spoken.INFER, openapi_extra=spoken.tensors(service.served))
    @made.post(f"{MODEL}/infer", responses=spoken.INFER, openapi_extra=spoken.tensors(service.served))
    async def infer(request: Request, name: str = named, version: str = "1") -> Response:
        check(name, version)
        body, header = await request.body(), request.headers.get(protocol.HEADER)
        asked = await service.read(lambda: protocol.asked(body, header, service.served))
        answer, length = protocol.answered(await service.batcher(asked.inputs), asked, name)
        headers: dict[str, Any] = {} if length is None else {protocol.HEADER: str(length)}
        kind = inputs.JSON if length is None else "application/octet-stream"
        return Response(answer, media_type=kind, headers=headers)
