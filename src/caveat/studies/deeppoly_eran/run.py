"""DeepPoly on ERAN's networks: digits that each method of bounds verifies, beside published counts and attacks."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from caveat import attacks, bounds, data
from caveat.attacks import Ball
from caveat.graph import Graph, trace
from caveat.records.findings import Findings, Scale
from caveat.studies.deeppoly_eran.findings import conclude
from caveat.studies.deeppoly_eran.training import NETS, network
from caveat.studies.kit import common, networks
from caveat.studies.kit import folder as folders

__all__ = ["run"]

Method = Literal["interval", "deeppoly", "alpha", "branch"]
BATCH = 100
TOY = 0.01
"""The radius for the toy of smoke runs."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    digits: int
    """Bounded by intervals and DeepPoly, and attacked."""
    few: int
    """Bounded by optimised slopes and by branch and bound, too."""
    seconds: float
    """Of branch and bound, for each digit."""
    restarts: int
    toy: bool = False


SIZES: dict[Scale, Size] = {
    "smoke": Size(20, 4, 0.5, 1, toy=True), "small": Size(1000, 10, 20.0, 2), "full": Size(1000, 50, 60.0, 5),
}  # fmt: skip


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Certify and attack the first test digits on each of ERAN's networks; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="deeppoly-eran", scale=scale, seed=seed, size=size)
    inputs, labels = common.pictures(data.load(f"{'digits' if size.toy else 'mnist'}:test+first={size.digits}"))
    found: dict[str, dict[str, Any]] = {}
    for name, net in list(NETS.items())[: 1 if size.toy else None]:
        say(f"{name}: certifying")
        model = networks.toy(seed, folder) if size.toy else network(name)
        ball = Ball(math.inf, TOY if size.toy else net.radius)
        found[name] = folders.stored(folder / f"{name}.json", partial(_judged, model, inputs, labels, ball, size, seed))
    return conclude(scale, seed, size.digits, size.few, size.seconds, found)


def _judged(model: nn.Module, inputs: Tensor, labels: Tensor, ball: Ball, size: Size, seed: int) -> dict[str, Any]:
    """How many digits are right, stay so under attack, and are verified; CPU milliseconds a digit."""
    with torch.no_grad():
        right = model(inputs).argmax(1) == labels
    worst = torch.cat([
        attacks.pgd(model, x, y, ball, restarts=size.restarts, generator=torch.Generator().manual_seed(seed))
        for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True)
    ])  # fmt: skip
    with torch.no_grad():
        stood = right & (model(worst).argmax(1) == labels)
    graph = trace(model, inputs[:1])
    verified, milliseconds = {}, {}
    for method in ("interval", "deeppoly"):
        verified[method], milliseconds[method] = _verified(model, inputs, labels, ball, method, graph)
    few = slice(0, size.few)
    fewer = {"stood": int(stood[few].sum())}
    proved = {"deeppoly": verified["deeppoly"][few]}
    for method in ("alpha", "branch"):
        seconds = size.seconds if method == "branch" else None
        found = bounds.certify(
            model, inputs[few], labels[few], ball, method=method, seconds=seconds, seed=seed, graph=graph
        )
        proved[method] = found.verified
        fewer[f"{method}_open"] = int(found.open.sum())
        fewer[f"{method}_falsified"] = int(found.falsified.sum())
    return {
        "right": int(right.sum()), "stood": int(stood.sum()),
        "broken": int(sum((which & ~stood).sum() for which in verified.values()))
        + int(sum((which & ~stood[few]).sum() for which in proved.values())),
        "lost": int((proved["deeppoly"] & ~proved["alpha"]).sum()),
        "verified": {method: int(which.sum()) for method, which in verified.items()},
        "milliseconds": milliseconds,
        "few": fewer | {method: int(which.sum()) for method, which in proved.items()},
    }  # fmt: skip


def _verified(
    model: nn.Module, inputs: Tensor, labels: Tensor, ball: Ball, method: Literal["interval", "deeppoly"], graph: Graph
) -> tuple[Tensor, float]:
    """Which digits are verified, and the CPU milliseconds for each, of bounds alone."""
    start = time.process_time()
    parts = [
        (bounds.bounds(model, x, ball, outputs="margins", labels=y, method=method, graph=graph)[0] > 0).all(1)
        for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True)
    ]
    return torch.cat(parts), 1000 * (time.process_time() - start) / len(inputs)
