"""DeepG on MNIST: digits certified against rotation, translation and two compositions, beside intervals."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from caveat import bounds, data
from caveat.attacks.transformation import Transformation
from caveat.graph import Graph, trace
from caveat.models import Normalized
from caveat.records.findings import Findings, Scale
from caveat.studies.deepg_mnist.findings import conclude
from caveat.studies.kit import common, networks
from caveat.studies.kit import folder as folders

__all__ = ["run"]


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    digits: int
    """Certified by lines."""
    few: int
    """Certified by intervals with CGT's splits, which take minutes a digit for compositions."""
    cells: int
    toy: bool = False


SIZES: dict[Scale, Size] = {
    "smoke": Size(3, 2, 8, toy=True), "small": Size(100, 10, 1000), "full": Size(100, 100, 1000),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A transformation, CGT's network for it, and the parts of CGT's own configuration."""

    network: str
    transformation: Transformation
    parts: tuple[int, ...]
    """In the order of the transformation's names."""


CASES: dict[str, Case] = {
    "R(30)": Case("mnist_rotate30", Transformation(rotate=30), (240,)),
    "T(2,2)": Case("mnist_translate2", Transformation(right=2, down=2), (80, 80)),
    "Sc(5) R(5) B(5,.01)": Case(
        "mnist_scale5_rotate5_contrast5_brightness01",
        Transformation(rotate=5, scale=0.05, contrast=0.05, brightness=0.01), (80, 20, 2, 1),
    ),
    "Sh(2) R(2) Sc(2) B(2,.001)": Case(
        "mnist_shear2_rotate2_scale2_contrast2_brightness001",
        Transformation(rotate=2, scale=0.02, shear=0.02, contrast=0.02, brightness=0.001), (64, 16, 16, 1, 1),
    ),
}  # fmt: skip


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Certify the first test digits with each of CGT's networks, by lines and by intervals; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="deepg-mnist", scale=scale, seed=seed, size=size)
    name = "digits" if size.toy else "mnist"
    inputs, labels = common.pictures(data.load(f"{name}:test+first={size.digits}"))
    found: dict[str, dict[str, Any]] = {}
    for number, (label, case) in enumerate(list(CASES.items())[: 2 if size.toy else None]):
        say(f"{label}: certifying")
        net = networks.toy(seed, folder) if size.toy else _network(case.network)
        make = partial(_judged, net, inputs, labels, case, size, seed)
        found[label] = folders.stored(folder / f"{number}.json", make)
    return conclude(scale, seed, size.digits, size.few, size.cells, found)


def _network(name: str) -> nn.Module:
    """One of CGT's."""
    state = networks.state_of("cgt", name)
    layers = {
        "conv1": nn.Conv2d(1, 32, 4, 2, 1), "relu1": nn.ReLU(), "conv2": nn.Conv2d(32, 64, 4, 2, 1), "relu2": nn.ReLU(),
        "flat": nn.Flatten(), "fc1": nn.Linear(3136, 200), "relu3": nn.ReLU(), "fc2": nn.Linear(200, 10),
    }  # fmt: skip
    net = nn.Sequential()
    for key, layer in layers.items():
        net.add_module(key, layer)
    net.load_state_dict({key: value for key, value in state.items() if not key.startswith("normalize.")})
    return Normalized(net, float(state["normalize.mean"]), float(state["normalize.std"])).eval()


def _judged(
    model: nn.Module, inputs: Tensor, labels: Tensor, case: Case, size: Size, seed: int
) -> dict[str, dict[str, float]]:
    """Shares in % and CPU seconds a digit: of lines on all digits, and of both on the few."""
    few = size.few
    parts = (2,) * len(case.parts) if size.toy else case.parts
    with torch.no_grad():
        right = 100 * float((model(inputs).argmax(1) == labels).double().mean())
    judge = partial(_certified, model, case.transformation, trace(model, inputs), seed)
    judge(inputs[:1], labels[:1], "interval", 1, (1,) * len(parts))  # what is imported at first use is no one's time
    each = {
        "few": judge(inputs[:few], labels[:few], "crown_ibp", size.cells, None),
        "interval": judge(inputs[:few], labels[:few], "interval", math.prod(parts), parts),
        "lines": judge(inputs, labels, "crown_ibp", size.cells, None),
    }
    return {"network": {"accuracy": right}} | each


def _certified(  # noqa: PLR0913 -- each is one independent choice
    model: nn.Module, transformation: Transformation, graph: Graph, seed: int, inputs: Tensor, labels: Tensor,
    method: Literal["crown_ibp", "interval"], cells: int, parts: tuple[int, ...] | None,
) -> dict[str, float]:  # fmt: skip
    start = time.process_time()
    found = bounds.certify_transformed(
        model, inputs, labels, transformation, method=method, cells=cells, parts=parts, seed=seed, graph=graph
    )
    spent = (time.process_time() - start) / len(inputs)
    shares = {"certified": found.verified, "falsified": found.falsified, "open": found.open}
    return {name: 100 * float(which.double().mean()) for name, which in shares.items()} | {"seconds": spent}
