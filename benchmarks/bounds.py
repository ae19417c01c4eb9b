"""How many of the first MNIST test digits DeepPoly verifies on ERAN's networks, and its cost beside CROWN's.

The networks and digits are read from the folder CAVEAT_DATA (`eran/`, `mnist`). Published for 1,000 digits, measured
with two other implementations: 166, 186, 303, 158. Where the package auto_LiRPA can be imported (it is no dependency),
its CROWN bounds the same digits in the same run, each in a process of its own, for time and memory, in float32 as it
does and in float64, where its bounds are nearer to the exact ones; else the ratios are null. With
`--branch`, what branch and bound decides in so many seconds of one core each, of the digits that DeepPoly and PGD leave
open: of the first 50 of two of ERAN's networks, and of the first 100 of `sdp/mnist_cnn_a_adv` at 0.3 (published as
verified: 43 % by SDP-FO, 44 % by PRIMA, 70 % by beta-CROWN). The last line is JSON.

    python benchmarks/bounds.py [--smoke] [--digits 1000] [--compared 50] [--threads 1] [--branch 60]
"""

import argparse
import json
import math
import multiprocessing
import resource
import time
import unittest.mock
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from caveat import bounds, data
from caveat.attacks import Ball
from caveat.graph import trace
from caveat.studies.deeppoly_eran.training import NETS, network
from caveat.studies.kit.networks import state_of, strided

BATCH, REPEATS = 50, 3
FLOOR = 1.0
"""MB: less growth of a process is not told from none, and no ratio is taken where neither grew by more."""


def cnn_a(name: str) -> nn.Module:
    """A network of the folder `sdp`: two convolutions of stride 2."""
    model = strided((1, 28, 28), 16, 100, torch.Generator().manual_seed(0))
    model.load_state_dict(state_of("sdp", name))
    return model.eval()


BRANCHED: dict[str, tuple[int, float, Callable[[], nn.Module]]] = {
    "6x100": (50, NETS["6x100"].radius, partial(network, "6x100")),
    "conv_small": (50, NETS["conv_small"].radius, partial(network, "conv_small")),
    "mnist_cnn_a_adv": (100, 0.3, partial(cnn_a, "mnist_cnn_a_adv")),
}
"""Digits, radius and network for branch and bound."""


def digits(model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Those that the network classifies as they are."""
    inputs, labels = data.load("mnist:test").take(torch.arange(count))
    with torch.no_grad():
        right = model(inputs).argmax(1) == labels
    return inputs[right], labels[right]


def ours(name: str, count: int) -> tuple[int, float]:
    """Verified samples, and seconds of the processor for each without the second or two of the trace."""
    model = network(name)
    inputs, labels = digits(model, count)
    graph, ball, verified = trace(model, inputs), Ball(math.inf, NETS[name].radius), 0
    started = time.process_time()
    for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
        low, _ = bounds.bounds(model, x, ball, outputs="margins", labels=y, graph=graph)
        verified += int((low > 0).all(1).sum())
    return verified, (time.process_time() - started) / len(inputs)


def theirs(name: str, count: int, kind: torch.dtype = torch.float32) -> tuple[int, float]:
    """The same by auto_LiRPA's CROWN."""
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    model, radius = network(name), NETS[name].radius
    inputs, labels = digits(model, count)
    model, inputs = model.to(kind), inputs.to(kind)
    bounded, verified = BoundedModule(model, inputs[:1], bound_opts={"conv_mode": "patches"}), 0
    eye = torch.eye(10, dtype=kind)
    started = time.process_time()
    size = 10 if name == "conv_small" else BATCH  # its patches fail on some larger batches
    for x, y in zip(inputs.split(size), labels.split(size), strict=True):
        others = torch.stack([torch.tensor([k for k in range(10) if k != label]) for label in y.tolist()])
        around = PerturbationLpNorm(x_L=(x - radius).clamp(0, 1), x_U=(x + radius).clamp(0, 1), norm=math.inf)
        matrix = eye[y][:, None] - eye[others]
        low, _ = bounded.compute_bounds(x=(BoundedTensor(x, around),), C=matrix, method="CROWN", bound_upper=False)
        verified += int((low > 0).all(1).sum())
    return verified, (time.process_time() - started) / len(inputs)


def alone(function: Any, name: str, count: int, threads: int) -> dict[str, float]:
    """In a process of its own: what it found, seconds a sample (of the fastest run), and by how many MB it grew."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, name, count, threads).result()


def _measured(function: Any, name: str, count: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    function(name, 2)  # what is imported and set up once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    verified, seconds = function(name, count)
    seconds = min(seconds, *(function(name, count)[1] for _ in range(REPEATS - 1)))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"verified": verified, "seconds": seconds, "memory": max(FLOOR, grown / 1024)}


def branched(name: str, seconds: float, smoke: bool) -> dict[str, int]:
    """Of the first digits: verified and falsified by DeepPoly and PGD, open, and what branch and bound makes of these.

    Time is that of the processor; digits whose margin is nearest to 0 come first.
    """
    count, radius, build = BRANCHED[name]
    model = build()
    inputs, labels = data.load("mnist:test").take(torch.arange(2 if smoke else count))
    graph, ball = trace(model, inputs[:1]), Ball(math.inf, radius)
    first = bounds.certify(model, inputs, labels, ball, graph=graph)
    rows = first.open.nonzero().flatten()
    rows = rows[first.margin[rows].argsort(descending=True)]
    found = {"verified": 0, "falsified": 0, "open": 0}
    with unittest.mock.patch("time.perf_counter", time.process_time):
        for row in rows.tolist():
            one = slice(row, row + 1)
            made = bounds.certify(model, inputs[one], labels[one], ball, method="branch", seconds=seconds, graph=graph)
            found[bounds.VERDICTS[int(made.verdict)]] += 1
            print(f"{name}, digit {row}, margin {float(first.margin[row]):.2f}: {bounds.VERDICTS[int(made.verdict)]}")
    before = {"verified": int(first.verified.sum()), "falsified": int(first.falsified.sum()), "open": len(rows)}
    return {f"{key}_before": value for key, value in before.items()} | found


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few digits: does the script run?")
    options.add_argument("--digits", type=int, default=1000)
    options.add_argument("--compared", type=int, default=50, help="digits for time and memory, on every network")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--branch", type=float, metavar="SECONDS", help="of branch and bound, for each open digit")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    count, compared = (8, 4) if chosen.smoke else (chosen.digits, chosen.compared)
    table = Table(title=f"first {count} digits; time and memory on {compared}")
    for column in ("", "verified", "ms a digit", "CROWN ms", "MB", "CROWN MB"):
        table.add_column(column, justify="right")
    verified, times, doubles, memories = {}, {}, {}, {}
    for name in NETS:
        verified[name] = ours(name, count)[0]
        mine = alone(ours, name, compared, chosen.threads)
        other = alone(theirs, name, compared, chosen.threads) if find_spec("auto_LiRPA") else None
        if other:
            times[name] = mine["seconds"] / other["seconds"]
            if max(mine["memory"], other["memory"]) > FLOOR:
                memories[name] = mine["memory"] / other["memory"]
            doubles[name] = (
                mine["seconds"] / alone(partial(theirs, kind=torch.float64), name, compared, chosen.threads)["seconds"]
            )
        cells = [f"{1000 * mine['seconds']:.1f}", f"{1000 * other['seconds']:.1f}" if other else "-",
                 f"{mine['memory']:.0f}", f"{other['memory']:.0f}" if other else "-"]  # fmt: skip
        table.add_row(name, str(verified[name]), *cells)
    Console().print(table)
    decided = {name: branched(name, chosen.branch, chosen.smoke) for name in BRANCHED} if chosen.branch else None
    print(json.dumps({
        "verified": verified,
        "deeppoly_over_crown_time": times or None,
        "deeppoly_over_crown_time_in_float64": doubles or None,
        "deeppoly_over_crown_memory": memories or None,
        "branch": decided,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
