"""Milliseconds of a request at 1, 8 and 64 clients: of the guard, of the bare network in the same server, and of that
network in LitServe, where `make references` has put it; the last line is JSON.

Each server is a process of its own, with its defaults but for what is the same for all: at most 64 inputs in a pass,
which waits 2 ms for them. Requests are the same JSON, and the answers are checked to agree. LitServe gives the bare
network's probabilities, ours the whole verdict of a guard.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import torch
from torch import Tensor

from caveat import Guard, models
from caveat.guard.verdict import Verdict
from caveat.serve import Limits, Served
from caveat.serve.app import application
from caveat.serve.running import listening, run
from caveat.serve.served import of_guard

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.references.peers import load_peer

CLIENTS = (1, 8, 64)
PATHS = {"guard": "/v1/verdict", "bare": "/v1/verdict", "litserve": "/predict"}
HEADERS = {"content-type": "application/json"}
litserve: Any = load_peer("litserve")


def guarded() -> Guard:
    """A LeNet on noise: what it answers does not matter here."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(400, 1, 28, 28, generator=generator)
    network = models.lenet(generator=generator).eval()
    with torch.no_grad():
        labels = network(inputs).argmax(dim=1)
    return Guard.fit(network, (inputs, labels), score="energy", keep=0.95)


def bare(guard: Guard) -> Served:
    """The same service around the network alone: softmax, and the class."""
    network, like = guard.model, guard(torch.rand(1, *guard.decision.shape))

    def ask(inputs: Tensor) -> Verdict:
        with torch.no_grad():
            confidence, predicted = (probs := network(inputs).softmax(dim=1)).max(dim=1)
        yes, zero = torch.ones(len(inputs), dtype=torch.bool), torch.zeros(len(inputs))
        return replace(
            like, label=predicted, predicted=predicted, probs=probs, confidence=confidence, accepted=yes,
            score=zero, p_value=zero, aleatoric=zero, reason=torch.zeros(len(inputs), dtype=torch.int64),
        )  # fmt: skip

    return replace(of_guard(guard), ask=ask)


class Alone(litserve.LitAPI if litserve else object):
    """The same network in LitServe, whose workers make this class again in their own processes."""

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.network = guarded().model

    def decode_request(self, request: dict[str, Any]) -> Tensor:
        return torch.tensor(request["inputs"])

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return torch.cat(inputs)

    def predict(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(inputs).softmax(dim=1)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output)

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        return {"verdicts": [{"probs": output.tolist()}]}


def serve(name: str, port: int) -> None:
    """Answer until the process is ended."""
    limits = Limits()
    if name == "litserve":
        api = Alone(max_batch_size=limits.batch, batch_timeout=limits.wait)
        made = litserve.LitServer(api, accelerator="cpu")
        return made.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
    torch.set_num_threads(1)
    guard = guarded()
    served = of_guard(guard) if name == "guard" else bare(guard)
    return run(application(served, limits=limits), listening("127.0.0.1", port), limits)


@contextmanager
def running(name: str) -> Iterator[str]:
    """The address of a server that answers, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", name, "--port", str(port)]
    made = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}{PATHS[name]}"
    try:
        until = time.monotonic() + 120
        while True:
            try:
                answer(address)
                break
            except httpx.TransportError:
                if time.monotonic() > until or made.poll() is not None:
                    raise
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(made.pid, signal.SIGKILL)  # LitServe's workers among them
        made.wait()


def answer(address: str) -> np.ndarray:
    """The probabilities that a server gives."""
    found = httpx.post(address, content=body(), headers=HEADERS, timeout=60)
    return np.array(found.raise_for_status().json()["verdicts"][0]["probs"])


def body() -> bytes:
    """What every request says."""
    picture = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    return json.dumps({"inputs": picture.tolist()}).encode()


async def asked(address: str, clients: int, seconds: float) -> list[float]:
    """Milliseconds of the requests of so many clients, each of which asks again when it has its answer."""
    found: list[float] = []
    sent = body()
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=clients), timeout=60) as client:

        async def ask(until: float) -> None:
            while time.perf_counter() < until:
                begun = time.perf_counter()
                (await client.post(address, content=sent, headers=HEADERS)).raise_for_status()
                found.append(1000 * (time.perf_counter() - begun))

        await asyncio.gather(*(ask(time.perf_counter() + 0.3) for _ in range(clients)))  # warm
        found.clear()
        await asyncio.gather(*(ask(time.perf_counter() + seconds) for _ in range(clients)))
    return found


def check_same(found: dict[str, np.ndarray]) -> None:
    """That all compute the same; the guard's probabilities are calibrated, so that the order of its classes counts."""
    for name, probs in found.items():
        order = np.array_equal(probs.argsort(), found["bare"].argsort())
        if not (order if name == "guard" else np.allclose(probs, found["bare"], atol=1e-5)):
            raise SystemExit(f"{name} gives {probs}, the bare network {found['bare']}: they cannot be compared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", choices=list(PATHS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve, given.port)
    names = [name for name in PATHS if litserve or name != "litserve"]
    taken: dict[tuple[str, int], list[list[float]]] = {(name, c): [] for name in names for c in CLIENTS}
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(running(name)) for name in names}
        check_same({name: answer(address) for name, address in addresses.items()})
        # in turns of a moment each, for the machine has other work; the median of the turns counts
        for _ in range(given.rounds):
            for clients in CLIENTS:
                for name in names:
                    times = asyncio.run(asked(addresses[name], clients, given.seconds))
                    taken[name, clients].append([*np.percentile(times, [50, 99]).tolist(), len(times) / given.seconds])
    middle = {name: {c: np.median(taken[name, c], axis=0).tolist() for c in CLIENTS} for name in names}

    def over(name: str, place: int) -> dict[int, float]:
        """The guard's figure over another's of the same turn."""
        pairs = {c: zip(taken["guard", c], taken[name, c], strict=True) for c in CLIENTS}
        return {c: round(float(np.median([a[place] / b[place] for a, b in both])), 3) for c, both in pairs.items()}

    for clients in CLIENTS:
        for name in names:
            p50, p99, rate = middle[name][clients]
            print(f"{clients:2d} clients, {name:8s}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {rate:.0f} requests/s")
    found: dict[str, dict[int, float]] = {
        "serve_p99_ms": {c: round(middle["guard"][c][1], 2) for c in CLIENTS},
        "serve_over_bare": over("bare", 0),
    }
    if litserve:
        found |= {"p50_over_litserve": over("litserve", 0), "p99_over_litserve": over("litserve", 1)}
    else:
        print("LitServe is not installed here, so not compared (make references)")
    print(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
