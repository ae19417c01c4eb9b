"""Is an exported guard the guard? 10,000 verdicts in a process that has onnxruntime alone, and what 20 draws cost.

    python benchmarks/export.py [--epochs 2] [--rounds 15]

Trains a LeNet on the 4,000 digits of the demo, fits the README's guard on held-out digits (score auto, keep 0.95) and
exports it. Asked are 10,000 inputs: digits, noisy digits, and noise; the other process imports no torch. Then a guard
of the same network as a last-layer Laplace posterior of 20 draws, and one of a ResNet-20, beside guards of the networks
alone, in turns; the best of all rounds, seconds of one processor. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import caveat
from caveat import data, models, observations, posteriors
from caveat.heads import find
from caveat.posteriors import laplace
from caveat.scoring import catalog
from caveat.scoring.kinds import kind_of
from caveat.training.recipe import train

ALONE = """
import sys, numpy, onnxruntime
onnxruntime.set_default_logger_severity(3)
session = onnxruntime.InferenceSession(sys.argv[1] + "/guard.onnx")
inputs = numpy.load(sys.argv[1] + "/inputs.npy")
names = [output.name for output in session.get_outputs()]
parts = [session.run(None, {"inputs": inputs[at : at + 500]}) for at in range(0, len(inputs), 500)]
numpy.savez(sys.argv[1] + "/found.npz", **dict(zip(names, map(numpy.concatenate, zip(*parts)))))
assert not {"torch", "caveat"} & set(sys.modules)
"""


def asked(digits: Tensor, generator: torch.Generator) -> Tensor:
    """10,000 inputs: digits moved and with more and more noise, and a tenth of noise alone."""
    rows = torch.randint(len(digits), (9000,), generator=generator)
    strength = torch.linspace(0, 0.6, 9000).view(-1, 1, 1, 1)
    noisy = digits[rows] + strength * torch.randn(9000, *digits.shape[1:], generator=generator)
    return torch.cat([noisy.clamp(0, 1), torch.rand(1000, *digits.shape[1:], generator=generator)])


def agreement(guard: caveat.Guard, inputs: Tensor, folder: Path) -> dict[str, float]:
    guard.export(folder / "guard.onnx")
    np.save(folder / "inputs.npy", inputs.numpy())
    subprocess.run([sys.executable, "-c", ALONE, str(folder)], check=True)
    found = np.load(folder / "found.npz")
    verdicts = [guard(part) for part in inputs.split(500)]

    def wanted(name: str) -> np.ndarray:
        return torch.cat([getattr(verdict, name) for verdict in verdicts]).numpy()

    return {
        "verdicts": len(inputs),
        "identical": int((found["label"] == wanted("label")).sum()),
        "accepted": float(found["accepted"].mean()),
        "score_apart": float((np.abs(found["score"] - wanted("score")) / np.abs(wanted("score")).clip(1)).max()),
        "probability_apart": float(np.abs(found["probabilities"] - wanted("probs")).max()),
        "p_value_apart": float(np.abs(found["p_value"] - wanted("p_value")).max()),
    }


def sessions(guards: dict[str, caveat.Guard], folder: Path) -> dict[str, Callable[[np.ndarray], Any]]:
    import onnxruntime

    found: dict[str, Callable[[np.ndarray], Any]] = {}
    for name, guard in guards.items():
        guard.export(folder / f"{name}.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options)
        found[name] = lambda inputs, session=session: session.run(None, {"inputs": inputs})
    return found


def cost(model: nn.Module, shape: tuple[int, ...], rounds: int, folder: Path, known: Any = None) -> dict[str, float]:
    """Seconds of 20 draws of the last layer over those of the network alone, both as whole guards."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = known or (torch.rand(600, *shape, generator=generator), torch.arange(600) % 10)
    seen = observations.observe(model, [(inputs[:2000], labels[:2000])])
    head = find(model, inputs[:8])
    fitted = laplace.fit(seen.features, seen.labels, head.head, layer=head.name, structure="kronecker")
    drawn = posteriors.sample(fitted, model, draws=20, generator=generator)
    many = posteriors.Predictive(model, drawn).eval()
    run = sessions(
        {
            "one": caveat.Guard.fit(model, (inputs, labels), score="entropy", keep=0.9),
            "draws": caveat.Guard.fit(many, (inputs, labels), score="mutual_information", keep=0.9),
        },
        folder,
    )
    ratios: dict[str, float] = {}
    for batch in (1, 32, 256):
        rows = inputs[:batch].numpy()
        seconds: dict[str, list[float]] = {name: [] for name in run}
        for _ in range(max(rounds, 1024 // batch)):
            for name, ask in run.items():
                started = time.process_time()
                ask(rows)
                seconds[name].append(time.process_time() - started)
        best = {name: min(values) for name, values in seconds.items()}  # what others do on the machine only adds
        ratios[f"batch_{batch}"] = round(best["draws"] / best["one"], 3)
        ratios[f"ms_{batch}"] = round(1000 * best["one"], 3)
    return ratios


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--rounds", type=int, default=15)
    given = options.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = models.lenet(generator=generator)
    training, test = data.load("mnist5k:train"), data.load("mnist5k:test")
    train(network, training, epochs=given.epochs, rate=2e-3, batch=128, generator=generator)
    held_out = [(inputs, labels) for inputs, labels in test]
    digits, labels = (torch.cat(part) for part in zip(*held_out, strict=True))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guard = caveat.Guard.fit(network.eval(), held_out, train=list(training), score="auto", keep=0.95)
        found: dict[str, Any] = {
            "score": guard.decision.score.name,
            **agreement(guard, asked(digits, generator), folder),
        }
        found["draws_over_one_lenet"] = cost(network, (1, 28, 28), given.rounds, folder, (digits, labels))
        resnet = models.resnet20(generator=generator).eval()
        found["draws_over_one_resnet20"] = cost(resnet, (3, 32, 32), given.rounds, folder)
    names = list(catalog.families())
    backward = [
        one
        for one in names
        if kind_of(one).family in ("gradients", "meta") or one in ("odin", "mahalanobis_odin", "nac")
    ]
    found |= {"scores": len(names), "scores_exported": len(names) - len(backward)}
    table = Table(title="Exported guards")
    for column in ("figure", "value"):
        table.add_column(column)
    for key, value in found.items():
        table.add_row(key, json.dumps(value))
    Console().print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
