"""Is the limit of a ray what the network itself says far away? And what the theorem's condition and ties look like.

For LeNet, ResNet-18 with batch normalisation and a leaky-ReLU network: the class that `rays.along` gives as the limit
of alpha x, for uniform noise x, against the network in float64 at alpha = 10^8; where the outermost piece begins, the
number of ties and of violated conditions, and the time of the pass of pairs over one forward pass. The networks have
random weights, biases and statistics (`--weights FILE` reads LeNet's from a safetensors file). The last line is JSON.

    python benchmarks/rays.py [--smoke] [--rays 1000] [--threads 1]
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

from caveat import models
from caveat.graph import trace
from caveat.rays import row_distances
from caveat.rays.pairs import piece

ALPHA = 1e8


def leaky() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1),
        nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.LeakyReLU(0.1), nn.Flatten(),
        nn.Linear(784, 10),
    )  # fmt: skip


# the build, the input's shape, and the rays whose region's matrix is computed, of those asked for
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "lenet": (models.lenet, (1, 28, 28), 1.0),
    "resnet18": (lambda: models.resnet18(size=16), (3, 16, 16), 0.1),
    "leaky": (leaky, (1, 28, 28), 1.0),
}


def stirred(model: nn.Module, weights: Path | None) -> nn.Module:
    """Random weights, biases and statistics, in float64 and eval mode."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    if weights:
        model.load_state_dict({key: value.double() for key, value in load_file(weights).items()})
        return model
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            fan = value[0].numel() if value.ndim > 1 else 25
            value.copy_(drawn.abs() + 0.3 if "var" in name else drawn * (2 / fan) ** 0.5)
    return model


def measure(name: str, *, rays: int, batch: int, weights: Path | None) -> dict[str, float]:
    build, shape, share = NETS[name]
    model = stirred(build(), weights if name == "lenet" else None)
    inputs = torch.rand(rays, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    graph = trace(model, inputs[:2])
    limits: list[Tensor] = []
    answers: list[Tensor] = []
    ends: list[Tensor] = []
    ties, seconds = 0, {"pairs": 0.0, "forward": 0.0}
    with torch.no_grad():
        for part in inputs.split(batch):
            started = time.process_time()
            far = piece(graph, part, torch.full((len(part),), math.inf, dtype=torch.float64))
            seconds["pairs"] += time.process_time() - started
            started = time.process_time()
            answers.append(model(ALPHA * part).argmax(1))
            seconds["forward"] += time.process_time() - started
            limits.append(far.slopes.argmax(1))
            ends.append(far.last)
            top = far.slopes.topk(2, dim=1).values
            ties += int((top[:, 0] - top[:, 1] <= 1e-9 * far.slopes.abs().amax(1)).sum())
    checked = inputs[: max(1, round(share * rays))]
    apart = torch.cat([row_distances(graph, part) for part in checked.split(batch)])
    limit, last = torch.cat(limits), torch.cat(ends)
    return {
        "rays": rays,
        "agreement": float((limit == torch.cat(answers)).double().mean()),
        "classes": len(limit.unique()),
        "ties": ties,
        "median_last_breakpoint": float(last.median()),
        "largest_last_breakpoint": float(last.max()),
        "rows_checked": len(checked),
        "violated": int((apart <= 1e-9).sum()),
        "least_row_distance": float(apart.min()),
        "pairs_over_forward": seconds["pairs"] / seconds["forward"],
    }


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few rays: does the script run?")
    options.add_argument("--rays", type=int, default=1000)
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--weights", type=Path, help="of LeNet, as safetensors")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    rays = 8 if chosen.smoke else chosen.rays
    results = {name: measure(name, rays=rays, batch=chosen.batch, weights=chosen.weights) for name in NETS}
    table = Table(title=f"{rays} rays of uniform noise a network")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    for key in next(iter(results.values())):
        table.add_row(key.replace("_", " "), *(f"{found[key]:.4g}" for found in results.values()))
    Console().print(table)
    print(json.dumps({
        key: {name: found[key] for name, found in results.items()}
        for key in ("agreement", "ties", "violated", "rows_checked", "classes", "pairs_over_forward")
    }))  # fmt: skip


if __name__ == "__main__":
    main()
