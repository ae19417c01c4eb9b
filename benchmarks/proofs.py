"""Proofs of certificates: the stand-alone checker accepts them, and refuses what was tampered with; last line JSON.

Proofs are made of ERAN's networks (the first digits of MNIST; the folder CAVEAT_DATA holds both) and of small generated
ones, by every method. The checker runs where neither Caveat nor PyTorch can be imported. Then one thing is changed in
each proof so that it is wrong: a bound is tightened below a value that the network takes, a slope leaves [0, 1], a
multiplier is negative, a weight differs, another label, a larger ball, a leaf or a sign less, a margin above what the
network gives, a file cut off, NaN, another shape or type, a class or an array less, a name twice. All must be refused.
So must forged proofs of networks with a hidden counterexample (`soundness.py`), as a verifier would write them that
looks at a smaller ball, or takes what it saw at points of the ball for bounds.

    python benchmarks/proofs.py [--smoke] [--proofs 1000]
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caveat import bounds
from caveat.attacks import Ball
from caveat.bounds import checker, proofs
from caveat.bounds.outputs import forms
from caveat.graph import EVALUATE, Graph, trace
from caveat.tensors import pack

sys.path.append(str(Path(__file__).parents[1]))
from tests.scripts import benchmark

ERAN = {"6x100": 120, "9x100": 60, "6x200": 40, "conv_small": 30}
"""Proofs of each, of a thousand; all others are of generated networks."""
HIDDEN = (0, 2)
"""Problems of `soundness.py`, and every twelfth from there: norm inf, ReLU and convolution."""
RADII = (0.6, 0.3, 0.15, 0.07, 0.03)
SECONDS = 1.0
"""Of branch and bound, for a sample of a generated network."""
METHODS = ("interval", "deeppoly", "alpha", "branch")


@dataclass(frozen=True)
class Sample:
    """What a proof is of."""

    model: nn.Module
    graph: Graph
    inputs: Tensor
    label: int
    ball: Ball
    data: bytes


def generated(seed: int) -> tuple[nn.Module, Tensor]:
    """A small network with random weights and a few inputs; every fourth is a convolutional one with a residual sum."""
    generator = torch.Generator().manual_seed(seed)
    model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    if seed % 4 == 3:
        model = Residual()
    for name, value in model.state_dict().items():
        if value.is_floating_point() and "running_var" not in name:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.6)
    shape = (1, 4, 4) if seed % 4 == 3 else (4,)
    return model.eval(), torch.rand(6, *shape, generator=generator)


class Residual(nn.Module):
    """Convolution, batch normalisation, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.last(torch.relu(self.second(x) + x).flatten(1))


def eran(name: str, count: int) -> Iterator[Sample]:
    """Proofs of the first digits that DeepPoly verifies."""
    nets = benchmark("bounds")
    model, ball = nets.network(name), Ball(math.inf, nets.NETS[name].radius)
    inputs, labels = nets.digits(model, min(10_000, 12 * count + 20))
    graph = trace(model, inputs)
    net = checker.network(proofs.network(graph))
    for x, label in zip(inputs, labels.tolist(), strict=True):
        low, _ = bounds.bounds(
            model, x[None], ball, outputs="margins", labels=torch.tensor([label]), graph=graph, method="deeppoly"
        )
        if bool((low > 0).all()) and (data := proofs.prove(net, graph, x[None], label, ball)) is not None:
            yield Sample(model, graph, x[None], label, ball, data)


def small(first: int) -> Iterator[Sample]:
    """Proofs of generated networks by all methods in turn, of the largest of some balls that the method verifies."""
    for seed in itertools.count(first):
        model, inputs = generated(seed)
        graph, method = trace(model, inputs), METHODS[seed // 4 % 4]
        net = checker.network(proofs.network(graph))
        with torch.no_grad():
            labels = model(inputs).argmax(1)
        left, limit = torch.arange(len(inputs)), SECONDS if method == "branch" else None
        for ball in (Ball(math.inf, radius) for radius in RADII):
            given = (model, inputs[left], labels[left], ball)
            found = bounds.certify(*given, method=method, graph=graph, seconds=limit)
            for k in left[found.verified].tolist():
                given = (net, graph, inputs[k : k + 1], int(labels[k]), ball)
                if (data := proofs.prove(*given, method=method, seconds=SECONDS)) is not None:
                    yield Sample(model, graph, inputs[k : k + 1], int(labels[k]), ball, data)
            left = left[~found.verified]


@dataclass
class Opened:
    """A proof's content, to be changed."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, data: bytes, form: str = "caveat proof 1") -> "Opened":
        about, arrays = checker.read(data, form)
        return cls(about, {name: value.copy() for name, value in arrays.items()})

    def closed(self) -> bytes:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in self.arrays.items()}
        return pack(tensors, header={"caveat": json.dumps(self.about)})

    def any(self, prefix: str, generator: np.random.Generator) -> str | None:
        """The name of an array with values."""
        names = [name for name, value in sorted(self.arrays.items()) if name.startswith(prefix) and value.size]
        return names[generator.integers(len(names))] if names else None


def reached(sample: Sample, generator: np.random.Generator) -> list[Tensor]:
    """Values of the whole list at one input of the ball, in float64."""
    noise = torch.from_numpy(generator.uniform(-1, 1, tuple(sample.inputs.shape)))
    x = sample.ball.project(sample.inputs.double() + sample.ball.radius * noise, sample.inputs.double())
    return listed(sample.graph.to(torch.float64), x)


def listed(graph: Graph, x: Tensor) -> list[Tensor]:
    """All values of the list."""
    values = [x]
    for node in graph.nodes:
        values.append(EVALUATE[type(node.operation)](node.operation, *(values[at] for at in node.arguments)))
    return values


Change = Callable[[Opened, Sample, np.random.Generator], "bytes | None"]
"""From a proof to one that is wrong; None where it has no such part."""


def tightened(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """A bound of a ReLU's argument that an input of the ball breaks."""
    name = proof.any(("low.", "high.")[generator.integers(2)], generator)
    if name is None:
        return None
    sign = 1 if name.startswith("low") else -1
    place = sample.graph.nodes[int(name.split(".")[1]) - 1].arguments[0]
    value, claim = reached(sample, generator)[place][0].numpy(), proof.arrays[name]
    where = np.unravel_index(np.argmax(sign * (value - claim)), claim.shape)
    proof.arrays[name][where] = value[where] + sign * 1e-6
    return proof.closed()


def margin(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """A margin above what an input of the ball has."""
    if len(proof.arrays["leaf.split"]):
        return None
    logits, leaf = reached(sample, generator)[-1][0].numpy(), generator.integers(len(proof.arrays["leaf.form"]))
    proof.arrays["leaf.margin"][leaf] = logits[sample.label] - logits[proof.arrays["leaf.form"][leaf]] + 1e-6
    return proof.closed()


def put(prefix: str, value: float) -> Change:
    """A number anywhere in one of the arrays of such a name."""

    def change(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
        del sample
        name = proof.any(prefix, generator)
        if name is None:
            return None
        if not (math.isfinite(value) or proof.arrays[name].dtype.kind == "f"):
            return None
        proof.arrays[name].flat[generator.integers(proof.arrays[name].size)] = value
        return proof.closed()

    return change


def another_weight(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """The proof says the hash of a network that answers otherwise: the folder holds that one."""
    del generator
    proof.about["network"] = hashlib.sha256(answering_otherwise(sample)).hexdigest()
    return proof.closed()


def answering_otherwise(sample: Sample) -> bytes:
    """The network with another shift in its last layer, by which the label loses."""
    net = Opened.of(proofs.network(sample.graph), "caveat network 1")
    name = f"{len(net.about['nodes'])}.shift"
    logits = reached(sample, np.random.default_rng(0))[-1][0].numpy()
    net.arrays[name][sample.label] -= 2 * float(np.ptp(logits)) + 1
    return net.closed()


def label(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """Another class."""
    classes = int(proof.arrays["leaf.form"].max(initial=sample.label)) + 1
    other = int(generator.choice([k for k in range(classes) if k != sample.label]))
    proof.about["label"] = other
    proof.arrays["leaf.form"] = np.where(proof.arrays["leaf.form"] == other, sample.label, proof.arrays["leaf.form"])
    return proof.closed()


def radius(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """A larger ball."""
    del sample
    proof.about["radius"] *= float(generator.uniform(1.01, 2))
    return proof.closed()


def moved(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """The ball around another input."""
    del generator
    proof.arrays["input"] = (
        np.where(proof.arrays["input"] > 0.5, -1, 1).astype("f4") * np.float32(sample.ball.radius)
        + proof.arrays["input"]
    )
    return proof.closed()


def fewer(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """A leaf is missing."""
    del sample
    return without_leaf(proof, int(generator.integers(len(proof.arrays["leaf.form"]))))


def without_leaf(proof: Opened, gone: int) -> bytes:
    """All that is said of one leaf is left out."""
    count, split = len(proof.arrays["leaf.form"]), proof.arrays["leaf.split"]
    kept = split[:, 0] != gone
    proof.arrays["leaf.pull"], split = proof.arrays["leaf.pull"][kept], split[kept]
    split[:, 0] -= split[:, 0] > gone
    proof.arrays["leaf.split"] = split
    last = max((int(name.split(".")[1]) for name in proof.arrays if name.startswith("slope.")), default=0)
    for name, value in proof.arrays.items():
        own = name.startswith(f"slope.{last}.") and len(value) == count > 1
        if own or name in ("leaf.form", "leaf.margin"):
            proof.arrays[name] = np.delete(value, gone, axis=0)
    return proof.closed()


def flipped(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """A leaf says the other sign."""
    del sample
    split = proof.arrays["leaf.split"]
    if not len(split):
        return None
    split[generator.integers(len(split)), 3] *= -1
    return proof.closed()


def uncovered(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """A class less: its leaves are given to another one."""
    forms = proof.arrays["leaf.form"]
    gone = generator.choice(forms)
    others = [k for k in np.unique(forms) if k != gone]
    if not others:
        return None
    proof.arrays["leaf.form"] = np.where(forms == gone, others[0], forms)
    return proof.closed()


def shape(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """One more axis, or a value less."""
    del sample
    name = proof.any(("low.", "high.", "slope.", "leaf.", "input")[generator.integers(5)], generator)
    if name is None:
        return None
    proof.arrays[name] = proof.arrays[name][None] if generator.integers(2) else proof.arrays[name][..., :-1]
    return proof.closed()


def kind(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes | None:
    """Numbers of another type."""
    del sample
    name = proof.any(("low.", "slope.", "leaf.")[generator.integers(3)], generator)
    if name is None:
        return None
    value = proof.arrays[name]
    proof.arrays[name] = value.astype("f4" if value.dtype == "f8" else "f8")
    return proof.closed()


def lost(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """An array is missing, or there is one too many. (Without slopes a proof may still hold, by intervals.)"""
    del sample
    name = proof.any(("high.", "leaf.margin", "input")[generator.integers(3)], generator) or "input"
    if generator.integers(2):
        del proof.arrays[name]
    else:
        proof.arrays["more"] = proof.arrays[name]
    return proof.closed()


def cut(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """The file ends too early or too late."""
    del proof
    place = int(generator.integers(len(sample.data)))
    return sample.data[:place] if generator.integers(2) else sample.data + b"\0" * (1 + place % 9)


def twice(proof: Opened, sample: Sample, generator: np.random.Generator) -> bytes:
    """A radius of 0 stands behind the claimed one, for readers that take the last."""
    del proof, generator
    size = int.from_bytes(sample.data[:8], "little")
    header = json.loads(sample.data[8 : 8 + size])
    said = header["__metadata__"]["caveat"]
    header["__metadata__"]["caveat"] = said[:-1] + f', "radius": {sample.ball.radius}}}'
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + sample.data[8 + size :]


CHANGES: dict[str, Change] = {
    "a bound tightened below a value that is taken": tightened,
    "a margin above one that is taken": margin,
    "a slope above 1": put("slope.", 1.5),
    "a slope below 0": put("slope.", -0.25),
    "a multiplier below 0": put("leaf.pull", -1.0),
    "NaN": put("", math.nan),
    "infinity": put("leaf.margin", math.inf),
    "minus infinity": put("low.", -math.inf),
    "another network, its hash given": another_weight,
    "another label": label,
    "a larger ball": radius,
    "another input": moved,
    "a leaf removed": fewer,
    "a sign of a split flipped": flipped,
    "a class missing": uncovered,
    "another shape": shape,
    "another type": kind,
    "an array missing or added": lost,
    "cut off": cut,
    "a name twice": twice,
}


def mutated(sample: Sample, number: int) -> tuple[str, bytes]:
    """The proof with one change, the next in turn that it has a place for."""
    generator = np.random.default_rng(number)
    for step in range(len(CHANGES)):
        name = list(CHANGES)[(number + step) % len(CHANGES)]
        data = CHANGES[name](Opened.of(sample.data), sample, generator)
        if data is not None and data != sample.data:
            return name, data
    raise AssertionError("no change fits")


def forged(seed: int) -> dict[str, Sample]:
    """Proofs that a verifier which is not sound would write of a network with a hidden counterexample.

    One looks at a smaller ball, the other takes for bounds what it saw at a thousand points.
    """
    problem = benchmark("soundness").problem(seed)
    graph, label = trace(problem.model, problem.inputs), int(problem.labels)
    net = checker.network(proofs.network(graph))
    found = dict[str, Sample]()
    near = proofs.prove(net, graph, problem.inputs, label, problem.ball.resized(problem.ball.radius / 4))
    if near is not None:
        opened = Opened.of(near)
        opened.about["radius"] = problem.ball.radius
        found["smaller ball"] = Sample(problem.model, graph, problem.inputs, label, problem.ball, opened.closed())
    data = seen_only(net, graph, problem.inputs, label, problem.ball)
    found["seen only"] = Sample(problem.model, graph, problem.inputs, label, problem.ball, data)
    return found


def seen_only(net: checker.Network, graph: Graph, inputs: Tensor, label: int, ball: Ball) -> bytes:
    """As a proof is made, but what was seen at points of the ball is claimed as bounds."""
    double, unit = graph.to(torch.float64), checker.UNITS["float32"]
    box = checker.ball(inputs[0].numpy(), ball.radius, (ball.low, ball.high), unit)
    making = proofs._Proof(net, double, forms(torch.tensor([label]), double)[0], {}, box, unit)
    low, high = (torch.from_numpy(end) for end in box)
    points = low + torch.rand(1000, *low.shape[1:], generator=torch.Generator().manual_seed(0)).double() * (high - low)
    values = listed(double, points)

    def claimed(now: checker.Bounds, k: int, *ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mine = values[net.nodes[k - 1].of[0]].numpy()
        making.arrays |= {f"low.{k}": mine.min(0), f"high.{k}": mine.max(0)}
        making.arrays |= {f"slope.{k}.{j}": share for j, share in making.adaptive(now).items()}
        return np.maximum(ends[0], mine.min(0)), np.minimum(ends[1], mine.max(0))

    now = checker.bounded(net, box, unit, claimed)
    leaves, left = making.proved(now, making.others(), making.adaptive(now))
    if len(left):
        raise AssertionError("the forged proof proves nothing")
    said = {"format": "caveat proof 1", "network": net.sha256, "label": label, "radius": ball.radius,
            "clip": (ball.low, ball.high), "rounding": "float32", "method": "deeppoly"}  # fmt: skip
    return proofs._written(making, now, leaves, inputs[0].numpy(), said)


PROGRAM = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def site(folder: Path) -> Path:
    """A folder with NumPy alone, for a process that finds nothing else."""
    place = folder / "numpy-alone"
    place.mkdir(exist_ok=True)
    for part in ("numpy", "numpy.libs"):
        origin = Path(np.__file__).parents[1] / part
        if origin.exists() and not (place / part).exists():
            (place / part).symlink_to(origin)
    return place


def check(folder: Path, *places: Path) -> tuple[int, list[str], float]:
    """Exit status, lines and seconds of the checker, as a stranger runs it: no Caveat, no PyTorch to be imported."""
    alone = folder / "checker.py"
    shutil.copy(checker.__file__, alone)
    started = time.perf_counter()
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, site(folder), alone, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stderr:
        raise RuntimeError(done.stderr)
    return done.returncode, done.stdout.splitlines(), time.perf_counter() - started


@dataclass
class Site:
    """Folders of proofs as the checker is given them."""

    path: Path

    def add(self, name: str, network: bytes, data: bytes) -> Path:
        """One more proof; a folder for each network."""
        place = self.path / hashlib.sha256(network).hexdigest()[:16]
        place.mkdir(parents=True, exist_ok=True)
        if not (place / checker.NETWORK).exists():
            (place / checker.NETWORK).write_bytes(network)
        (place / f"{name}.safetensors").write_bytes(data)
        return place


def counted(folder: Path, files: dict[str, tuple[bytes, bytes]]) -> tuple[int, int, float, dict[str, str]]:
    """Accepted, refused, seconds and the checker's words for each of `files`: name to network and proof."""
    where = Site(folder)
    places = sorted({where.add(name, *data) for name, data in files.items()})
    _, lines, seconds = check(folder, *places)
    said = {line.split()[1].split(".")[0]: line for line in lines if line.startswith(("accepted", "refused"))}
    if set(said) != set(files):
        raise AssertionError("the checker left something out")
    accepted = sum(line.startswith("accepted") for line in said.values())
    return accepted, len(said) - accepted, seconds, said


def wrong(sample: Sample, number: int) -> tuple[str, bytes, bytes]:
    """What was changed, the network that lies beside the changed proof, and that proof."""
    name, data = mutated(sample, number)
    beside = answering_otherwise(sample) if CHANGES[name] is another_weight else proofs.network(sample.graph)
    return name, beside, data


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--smoke", action="store_true", help="a few proofs of generated networks: does the script run?"
    )
    options.add_argument("--proofs", type=int, default=1000)
    options.add_argument("--forged", type=int, default=20, help="networks with a hidden counterexample")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    total, networks = (24, 2) if chosen.smoke else (chosen.proofs, chosen.forged)
    started, samples = time.perf_counter(), list[Sample]()
    for name, count in {} if chosen.smoke and "CAVEAT_DATA" not in os.environ else ERAN.items():
        samples += itertools.islice(eran(name, count * total // 1000), count * total // 1000)
        print(f"{name}: {len(samples)} proofs so far, {time.perf_counter() - started:.0f} s", flush=True)
    samples += itertools.islice(small(0), total - len(samples))
    made = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        honest = {f"{k:05d}": (proofs.network(sample.graph), sample.data) for k, sample in enumerate(samples)}
        accepted, _, seconds, _ = counted(Path(folder) / "honest", honest)
        changed = {f"{k:05d}": wrong(sample, k) for k, sample in enumerate(samples)}
        _, refused, _, said = counted(Path(folder) / "changed", {name: data[1:] for name, data in changed.items()})
        unsound = [one for seed in range(networks) for one in forged(HIDDEN[seed % 2] + 12 * (seed // 2)).values()]
        _, forgeries, _, _ = counted(
            Path(folder) / "forged", {f"{k}": (proofs.network(one.graph), one.data) for k, one in enumerate(unsound)}
        )
    kinds = Counter(name for name, *_ in changed.values())
    missed = Counter(changed[name][0] for name, line in said.items() if line.startswith("accepted"))
    for name, count in kinds.items():
        print(f"{count - missed[name]:4d} of {count:4d} refused: {name}")
    print(json.dumps({
        "accepted": accepted, "of": total, "refused": refused, "mutated": len(changed), "forged_refused": forgeries,
        "forged": len(unsound), "seconds_to_make": round(made, 1), "seconds_to_check": round(seconds, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
