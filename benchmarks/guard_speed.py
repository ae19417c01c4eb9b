"""What a guard costs: over its network alone, as a graph over PyTorch, and as a stream over a bare loop.

    python benchmarks/guard_speed.py [--rounds 9] [--count 20000]

A ResNet-20 with a guard of Mahalanobis distance and a LeNet with one of energy, batches of 256, one thread;
seconds of the processor, the best of all rounds, in turns (what others do on the machine only adds). The stream is
`caveat guard run` without the start of Python: it reads generated pictures and writes verdicts as Parquet; the bare
loop reads the same pictures and asks the network alone. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import caveat
from caveat import data, evaluation, models
from caveat.cli.guard import classification, verdicts
from caveat.guard import onnx_guard

BATCH = 256


def best(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the processor that each takes, in turns."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            found[name] = min(found[name], time.process_time() - started)
    return found


def fitted(model: nn.Module, shape: tuple[int, ...], score: str, generator: torch.Generator) -> caveat.Guard:
    inputs, labels = torch.rand(600, *shape, generator=generator), torch.arange(600) % 10
    return caveat.Guard.fit(model, (inputs, labels), train=(inputs.flip(3), labels), score=score, keep=0.95)


def bare(model: nn.Module, inputs: Tensor) -> Tensor:
    with evaluation.without_gradients():
        return model(inputs)


def one(guard: caveat.Guard, shape: tuple[int, ...], rounds: int, folder: Path) -> dict[str, float]:
    """Guard over network, and graph over guard, on a batch."""
    inputs = torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(1))
    guard.export(folder / "guard.onnx")
    graph = onnx_guard.load(folder / "guard.onnx")
    found = best(
        {"model": partial(bare, guard.model, inputs), "guard": partial(guard, inputs), "graph": partial(graph, inputs)},
        rounds,
    )
    return {
        "guard_over_model": round(found["guard"] / found["model"], 3),
        "onnx_over_torch": round(found["graph"] / found["guard"], 3),
    }


def stream(model: nn.Module, shape: tuple[int, int, int], count: int, rounds: int, folder: Path) -> float:
    """The rate of the stream over that of a bare loop over the same pictures."""
    generator = torch.Generator().manual_seed(0)
    guard = fitted(model, shape, "energy", generator)
    spec = f"noise:uniform+count={count}"
    source = data.load(spec, batch=BATCH, like=data.generated.blank(shape, name=spec))
    asked = verdicts.Answering("", "float32", guard, source, classification.table_of(source))
    runs = iter(range(rounds))

    def streamed() -> None:
        verdicts.write(asked, folder / f"run{next(runs)}", data=spec, seed=0, rows=50_000)

    def looped() -> None:
        for inputs, _ in source:
            bare(model, inputs)

    found = best({"stream": streamed, "loop": looped}, rounds)
    return round(found["loop"] / found["stream"], 3)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--count", type=int, default=20_000)
    given = options.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    resnet = models.resnet20(generator=generator).eval()
    lenet = models.lenet(generator=generator).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deep = one(fitted(resnet, (3, 32, 32), "mahalanobis", generator), (3, 32, 32), given.rounds, folder)
        small = one(fitted(lenet, (1, 28, 28), "energy", generator), (1, 28, 28), given.rounds, folder)
        rate = stream(lenet, (1, 28, 28), given.count, max(2, given.rounds // 3), folder)
    print(json.dumps({"lenet": small}))
    print(json.dumps({**deep, "stream_over_loop": rate}))


if __name__ == "__main__":
    main()
