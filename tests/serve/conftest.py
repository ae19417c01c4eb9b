"""A small guard of pictures, an application that serves it, and one that listens on a port."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor, nn

from caveat import Guard
from caveat.guard.monitor import Monitor
from caveat.serve import Limits, Served
from caveat.serve.app import application
from caveat.serve.running import listening, server
from caveat.serve.served import of_guard
from caveat.serve.watched import Watched
from tests.contracts.world import pictures

NET = """
import time
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

class Slow(nn.Sequential):
    def forward(self, inputs):
        time.sleep(0.15)
        return super().forward(inputs)

def slow():
    return Slow(nn.Flatten(), nn.Linear(64, 4))
"""


def known(count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    images, labels = pictures(count, seed=seed, noise=0.4)
    return images.float(), labels


@pytest.fixture(scope="package")
def guard() -> Guard:
    space: dict[str, Any] = {}
    exec(NET, space)
    net: nn.Sequential = space["build"]()
    images, labels = known(400, seed=1)
    means = torch.stack([images[labels == k].flatten(1).mean(0) for k in range(4)])
    with torch.no_grad():  # nearest mean, as logits
        net[1].weight.copy_(means)
        net[1].bias.copy_(-0.5 * (means**2).sum(1))
    return Guard.fit(net.eval(), known(400), score="energy", keep=0.9, examples=12)


@pytest.fixture(scope="package")
def folder(guard: Guard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the guard and the module of its network."""
    place = tmp_path_factory.mktemp("served")
    (place / "served_nets.py").write_text(NET)
    guard.save(place / "guard", model="served_nets:build")
    return place


@pytest.fixture(scope="package")
def served(guard: Guard) -> Served:
    return of_guard(guard)


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[TestClient]:
    assert served.watch is not None
    monitor: Monitor = served.watch(0.01, 0)
    app = application(served, limits=Limits(body=200_000), watched=Watched(monitor), docs=True)
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


@contextmanager
def running(served: Served, limits: Limits, token: str | None = None) -> Iterator[int]:
    """A service on a free port."""
    bound = listening("127.0.0.1", 0)
    made = server(application(served, limits=limits, token=token), limits)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        until = time.monotonic() + 20
        while not made.started and time.monotonic() < until:
            time.sleep(0.01)
        yield bound.getsockname()[1]
    finally:
        made.should_exit = True
        thread.join()
        bound.close()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture of bytes `(h, w)` or `(h, w, 3)`."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


Slowed = Callable[[float], Served]


@pytest.fixture
def slowed(served: Served) -> Slowed:
    """The guard behind a network that takes its time."""
    from dataclasses import replace

    def made(seconds: float) -> Served:
        def ask(inputs: Tensor) -> Any:
            time.sleep(seconds)
            return served.ask(inputs)

        return replace(served, ask=ask)

    return made
