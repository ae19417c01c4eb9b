"""What the gradient statistics cost: all seven of all layers, as a multiple of one batched forward and backward pass.

Target: at most 2.5 for the CNN of the paper and LeNet on 28x28 pictures and for ResNet-18 on 32x32 pictures. Also: the
paper's way (one backward pass a sample) and `torch.func.vmap(grad)` over ours, on fewer pictures, and peak memory, each
in a process of its own. All take turns in the same run; medians of the ratios. `plan_ms` is what finding the rules
takes once a model; ours includes it. `error_of_float32` compares with the loop in float64, over the largest value. The
last line is JSON.

    python benchmarks/gradients.py [--smoke] [--pictures 2000] [--threads 1]

One thread, unless told otherwise: on a shared machine the threads of both wait for each other.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from caveat import models
from caveat.scores import gradients

# share: pictures of this network to those asked for; its passes cost a hundred times more
NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], float]] = {
    "paper_cnn": (models.gradient_cnn, (1, 28, 28), 1.0),
    "lenet": (models.lenet, (1, 28, 28), 0.25),
    "resnet18": (models.resnet18, (3, 32, 32), 0.064),
}


def made(name: str, pictures: int) -> tuple[nn.Module, Tensor]:
    build, shape, share = NETS[name]
    net = build(generator=torch.Generator().manual_seed(0)).eval()
    count = max(4, round(pictures * share))
    return net, torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def floor(net: nn.Module, batches: list[Tensor]) -> None:
    for inputs in batches:
        logits = net(inputs)
        cross_entropy(logits, logits.argmax(dim=1), reduction="sum").backward()
        net.zero_grad()


def seven(rows: Tensor) -> Tensor:
    mean = rows.mean(dim=1)
    centred = rows - mean[:, None]
    m2, m3, m4 = ((centred**power).mean(dim=1) for power in (2, 3, 4))
    return torch.stack([rows.abs().sum(dim=1), rows.norm(dim=1), rows.amin(dim=1), rows.amax(dim=1), mean,
                        m3 / m2**1.5, m4 / m2**2], dim=1)  # fmt: skip


def by_layers(names: list[str], found: list[Tensor]) -> Tensor:
    layers: dict[str, list[Tensor]] = {}
    for name, gradient in zip(names, found, strict=True):
        layers.setdefault(name.rpartition(".")[0], []).append(gradient.flatten(1))
    joined = [torch.cat(parts, dim=1) for parts in layers.values()]
    return torch.stack([seven(rows) for rows in (*joined, torch.cat(joined, dim=1))], dim=1)


def by_loop(net: nn.Module, inputs: Tensor) -> Tensor:
    names, own = zip(*net.named_parameters(), strict=True)
    rows = []
    for sample in inputs.split(1):
        logits = net(sample)
        found = torch.autograd.grad(cross_entropy(logits, logits.argmax(dim=1)), own)
        rows.append(by_layers(list(names), [g.unsqueeze(0) for g in found]))
    return torch.cat(rows)


def by_vmap(net: nn.Module, inputs: Tensor, *, chunk: int) -> Tensor:
    own = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        logits = functional_call(net, parameters, (sample[None],))
        return -logits.log_softmax(dim=1).amax()  # the predicted class has the largest probability

    each = vmap(grad(loss), in_dims=(None, 0))
    return torch.cat([by_layers(list(own), list(each(own, part).values())) for part in inputs.split(chunk)])


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(name: str, *, pictures: int, batch: int, repeats: int) -> dict[str, float]:
    net, inputs = made(name, pictures)
    batches = list(inputs.split(batch))
    few = inputs[: max(2, len(inputs) // 16)]
    floor(net, batches[:1])
    gradients.statistics(net, inputs[:batch], batch_size=batch)
    ratios, ours, floors, loops, vmaps = [], [], [], [], []
    for _ in range(repeats):
        floors.append(seconds(lambda: floor(net, batches)) / len(inputs))
        ours.append(seconds(lambda: gradients.statistics(net, inputs, batch_size=batch)) / len(inputs))
        ratios.append(ours[-1] / floors[-1])
        loops.append(seconds(lambda: by_loop(net, few)) / len(few) / ours[-1])
        vmaps.append(seconds(lambda: by_vmap(net, few, chunk=8 if name == "resnet18" else 64)) / len(few) / ours[-1])
    few = few[:16]
    exact = by_loop(net.double(), few.double())
    found = gradients.statistics(net.float(), few).values
    scale = exact.abs().amax(dim=0)
    scale[:, 4], scale[:, 5:] = scale[:, 2:4].amax(dim=1), scale[:, 5:].clamp_min(1)  # a mean may be 0 by symmetry
    return {
        "floor_ms": 1e3 * statistics.median(floors), "ours_ms": 1e3 * statistics.median(ours),
        "ratio": statistics.median(ratios), "loop": statistics.median(loops), "vmap": statistics.median(vmaps),
        "pictures": len(inputs), "error": float(((found - exact).abs() / scale).max()),
        "plan_ms": 1e3 * min(seconds(lambda: gradients.probe(net, inputs)) for _ in range(3)),
    }  # fmt: skip


def peak(name: str, way: str, pictures: int, batch: int) -> float:
    """MB above what the process held before; Linux keeps the mark, which is set back here."""
    net, inputs = made(name, pictures)
    action = {"floor": lambda: floor(net, list(inputs.split(batch))),
              "ours": lambda: gradients.statistics(net, inputs, batch_size=batch)}[way]  # fmt: skip
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    action()
    return held("VmHWM") - before


def held(what: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def peak_elsewhere(name: str, way: str, pictures: int, batch: int) -> float:
    arguments = ["--peak", name, way, "--pictures", str(pictures), "--batch", str(batch)]
    made = subprocess.run([sys.executable, Path(__file__), *arguments], capture_output=True, text=True, check=True)
    return float(made.stdout.split()[-1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few pictures: does the script run?")
    options.add_argument("--pictures", type=int, default=2000, help="28x28 pictures; the full size is 10000")
    options.add_argument("--batch", type=int, default=None, help="256, for ResNet-18 32")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--nets", nargs="*", choices=NETS, default=list(NETS))
    options.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.peak:
        print(peak(*chosen.peak, chosen.pictures, chosen.batch))
        return
    pictures, repeats = (64, 1) if chosen.smoke else (chosen.pictures, chosen.repeats)
    table = Table(title=f"seven statistics of all layers, {chosen.threads} thread(s)")
    for column in (
        "",
        "pictures",
        "floor ms",
        "ours ms",
        "x floor",
        "loop / ours",
        "vmap / ours",
        "floor MB",
        "ours MB",
    ):
        table.add_column(column, justify="right")
    found: dict[str, dict[str, float]] = {}
    for name in chosen.nets:
        batch = chosen.batch or (32 if name == "resnet18" else 256)
        f = found[name] = measure(name, pictures=pictures, batch=batch, repeats=repeats)
        f |= {way: peak_elsewhere(name, way, pictures, batch) for way in ("floor", "ours")}
        cells = [f"{f['pictures']}", f"{f['floor_ms']:.3f}", f"{f['ours_ms']:.3f}"]
        cells += [f"{f[key]:.2f}" for key in ("ratio", "loop", "vmap")] + [f"{f[key]:.0f}" for key in ("floor", "ours")]
        table.add_row(name, *cells)
    Console().print(table)
    print(json.dumps({
        "gradients_over_forward_backward": {name: round(f["ratio"], 3) for name, f in found.items()},
        "loop_over_ours": {name: round(f["loop"], 2) for name, f in found.items()},
        "vmap_over_ours": {name: round(f["vmap"], 2) for name, f in found.items()},
        "peak_mb": {name: {"floor": round(f["floor"]), "ours": round(f["ours"])} for name, f in found.items()},
        "plan_ms": {name: round(f["plan_ms"], 1) for name, f in found.items()},
        "error_of_float32": {name: float(f"{f['error']:.1e}") for name, f in found.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
