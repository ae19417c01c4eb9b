"""Milliseconds of a request at 1, 8 and 64 clients, of the guard and of the bare network in the same server; the last
line is JSON.
"""

import argparse
import asyncio
import io
import json
import threading
import time
from dataclasses import replace

import httpx2 as httpx
import numpy as np
import torch
from torch import Tensor

from caveat import Guard, models
from caveat.guard.verdict import Verdict
from caveat.serve import Limits, Served
from caveat.serve.app import application
from caveat.serve.running import listening, server
from caveat.serve.served import of_guard

CLIENTS = (1, 8, 64)


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


async def asked(port: int, clients: int, seconds: float, body: bytes) -> list[float]:
    """Milliseconds of the requests of so many clients, each of which asks again when it has its answer."""
    found: list[float] = []
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", limits=httpx.Limits(max_connections=clients), timeout=60
    ) as client:

        async def ask(until: float) -> None:
            while time.perf_counter() < until:
                begun = time.perf_counter()
                answer = await client.post("/v1/verdict", content=body, headers={"content-type": "application/x-npy"})
                answer.raise_for_status()
                found.append(1000 * (time.perf_counter() - begun))

        await asyncio.gather(*(ask(time.perf_counter() + 0.3) for _ in range(clients)))  # warm
        found.clear()
        await asyncio.gather(*(ask(time.perf_counter() + seconds) for _ in range(clients)))
    return found


def measured(served: Served, seconds: float) -> dict[int, tuple[float, float, float]]:
    """p50, p99 and requests a second by the number of clients."""
    limits, bound = Limits(), listening("127.0.0.1", 0)
    made = server(application(served, limits=limits), limits)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [bound]})
    thread.start()
    while not made.started:
        time.sleep(0.01)
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32))
    out: dict[int, tuple[float, float, float]] = {}
    for clients in CLIENTS:
        times = asyncio.run(asked(bound.getsockname()[1], clients, seconds, buffer.getvalue()))
        out[clients] = (*np.percentile(times, [50, 99]).tolist(), len(times) / seconds)
    made.should_exit = True
    thread.join()
    bound.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    seconds, rounds = vars(parser.parse_args()).values()
    torch.set_num_threads(1)
    guard = guarded()
    both = {"guard": of_guard(guard), "bare": bare(guard)}
    # in turns, for the machine has other work; the median of the rounds counts
    taken = [{name: measured(served, seconds) for name, served in both.items()} for _ in range(rounds)]
    middle = {name: {c: np.median([one[name][c] for one in taken], axis=0).tolist() for c in CLIENTS} for name in both}
    for clients in CLIENTS:
        for name in both:
            p50, p99, rate = middle[name][clients]
            print(f"{clients:2d} clients, {name:5s}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {rate:.0f} requests/s")
    print(
        json.dumps(
            {
                "serve_p99_ms": {c: round(middle["guard"][c][1], 2) for c in CLIENTS},
                "serve_over_bare": {c: round(middle["guard"][c][0] / middle["bare"][c][0], 3) for c in CLIENTS},
            }
        )
    )


if __name__ == "__main__":
    main()
