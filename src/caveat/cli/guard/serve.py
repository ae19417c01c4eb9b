"""`caveat guard serve`: verdicts over HTTP."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.cli.checks import existing, output_folder, positive, share
from caveat.cli.options import DEVICE
from caveat.cli.terminal import echo
from caveat.errors import DataError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from caveat.serve.served import Served

NAME = "serve"
PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
LONGEST = 4096
"""Bytes of a token."""


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard, or what `caveat guard export` wrote (.onnx)."),
    model: str | None = typer.Option(
        None, help="The network the guard was made for: package.module:callable or hf:name; of a folder alone."
    ),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 lets other machines ask."),
    port: int = typer.Option(8000, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    token_file: Path | None = typer.Option(
        None, help="File whose first line every request must bring, as  Authorization: Bearer TOKEN."
    ),
    monitor: Path | None = typer.Option(
        None, help="Folder for the state of the monitor, which goes on after a stop; without it, it begins anew."
    ),
    level: float = typer.Option(
        0.01, help="Probability that the monitor ever raises an alarm although nothing has changed, in (0, 1)."
    ),
    batch: int = typer.Option(64, min=1, help="Inputs of a request, and of one pass of the network, at most."),
    wait: float = typer.Option(2.0, help="Milliseconds that an input waits for others, to share a pass with them."),
    queue: int = typer.Option(256, min=1, help="Requests that wait for the network; more are refused (429)."),
    concurrency: int = typer.Option(512, min=1, help="Requests at once; more are refused (429)."),
    body: float = typer.Option(8.0, help="Megabytes of a request at most."),
    timeout: float = typer.Option(30.0, help="Seconds for the sending of a request, and again for its answer."),
    docs: bool = typer.Option(False, "--docs", help="Describe the service under /openapi.json."),
    device: str = DEVICE,
) -> None:
    """Answer requests with verdicts: pictures, arrays, and the Open Inference Protocol of KServe and Triton."""
    share("--level", level)
    positive("--body", [body])
    positive("--timeout", [timeout])
    positive("--wait", [wait], zero=True)
    token = _token(token_file)
    if monitor is not None:
        output_folder(monitor, ("service.json",), option="--monitor")
    _check_extra()
    from caveat.files import alone
    from caveat.guard.monitor import FEW
    from caveat.serve.app import application
    from caveat.serve.limits import Limits
    from caveat.serve.running import listening
    from caveat.serve.running import run as answer
    from caveat.serve.watched import Watched

    limits = Limits(
        body=round(body * 2**20), batch=batch, wait=wait / 1000, queue=queue, concurrency=concurrency, timeout=timeout
    )
    bound = listening(host, port)
    with ExitStack() as stack:
        stack.callback(bound.close)
        served = _served(guard, model, device)
        watched = None
        if served.watch is None:
            why = (
                f"what is served holds fewer than {FEW} reference scores to watch it by; fit the guard on more "
                "samples, or export it again where an older version did"
            )
            if monitor is not None:
                raise OptionError(f"--monitor: {why}")
            echo(f"Nothing is monitored: {why}.")
        if monitor is not None:
            stack.enter_context(alone(monitor))
        if served.watch is not None:
            watched = Watched(served.watch(level, 0), monitor, digest=served.digest)
        name = guard.resolve().stem
        app = application(served, name=name, limits=limits, token=token, watched=watched, docs=docs)
        here, where = bound.getsockname()[:2]
        shown = f"[{here}]" if ":" in here else here
        echo(f"Serving {name} at http://{shown}:{where}/ (a page to try it); Ctrl-C ends it.")
        if token is None and not here.startswith("127.") and here != "::1":
            echo("Whoever reaches this address may ask: there is no --token-file.")
        answer(app, bound, limits)
    echo("Stopped; all that was accepted was answered.")


def _check_extra() -> None:
    from importlib.util import find_spec

    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package.replace("_", "-"), "serve", "A service")


def _token(path: Path | None) -> str | None:
    """The first line of a file.

    Raises
    ------
    DataError, OptionError
        If it cannot be read, or its first line is no token.
    """
    if path is None:
        return None
    from caveat.files import read_bytes

    existing("--token-file", path)
    lines = read_bytes(path, name="--token-file", most=LONGEST).splitlines()
    token = lines[0].strip() if lines else b""
    if len(token) < 8 or not token.isascii() or any(byte <= 32 or byte == 127 for byte in token):
        raise DataError(
            f"--token-file: expected at least 8 plain characters without spaces in the first line of {path}"
        )
    return token.decode("ascii")


def _served(guard: Path, model: str | None, device: str) -> "Served":
    import torch

    from caveat import devices
    from caveat.cli import model as models
    from caveat.cli.guard import exported
    from caveat.cli.guard.verdicts import named_network
    from caveat.guard import onnx_guard
    from caveat.guard.tasks import artefact_of
    from caveat.serve.served import of_graph, of_guard

    place = devices.check(device, None)
    if exported.is_exported(guard):
        exported.check(guard, model=model, device=device)
        served = of_graph(onnx_guard.load(guard))
    else:
        home = artefact_of(guard)
        made = home.manifest(guard)
        network = home.load(guard, models.load(named_network(model, made))).to(place)
        served = of_guard(network, digest=made.digest)
    # before the first request: what fails, fails here, and what is made at the first call is made now
    served.ask(torch.zeros(1, *served.shape, dtype=torch.int64 if served.whole else torch.float32))
    return served
