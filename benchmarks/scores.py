"""What scoring costs: `observe` and all scores of a set, as a multiple of one plain forward pass.

Targets: 1.25 for LeNet on 10,000 28x28 pictures, 1.15 for ResNet-18 on 1,000 32x32 pictures; of `observe` alone, with
its checks and the fingerprint of every input, 1.10 and 1.03. Nearest-neighbour scores, and fitting everything over a
forward pass of the samples it is fitted on, are reported apart. Floor and ours are timed in turns, in the same run;
medians. The last line is JSON.

On CUDA (`--device auto`) the target is 1.15 for ResNet-18 on 1,000 pictures of 224 pixels, in float32 and bfloat16.
"""

import argparse
import json
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from turns import in_turns

from caveat import devices, heads, models
from caveat.inputs import moved
from caveat.observations import Observations, observe
from caveat.scoring import catalog
from caveat.scoring.kinds import Material

NEIGHBOURS = {"knn", "nnguide"}


def batches_of(count: int, shape: tuple[int, ...], classes: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *shape, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    return list(zip(images.split(256), labels.split(256), strict=True))


def measure(
    net: nn.Module,
    shape: tuple[int, ...],
    *,
    count: int,
    fit_count: int,
    repeats: int,
    device: torch.device,
    dtype: str = "float32",
) -> dict[str, float]:
    with devices.running(net.eval(), device, dtype):
        return _measured(net, shape, count, fit_count, repeats, f"{devices.title(device)}, {dtype}")


def _measured(
    net: nn.Module, shape: tuple[int, ...], count: int, fit_count: int, repeats: int, where: str
) -> dict[str, float]:
    test, train = batches_of(count, shape, 10, 1), batches_of(fit_count, shape, 10, 2)
    head = heads.find(net, moved(test[0][0][:2], net))
    known = observe(net, train, head=head)
    started = time.perf_counter()
    fitted = catalog.fit(catalog.resolve(None), Material(known, head.head, known))
    fitting = time.perf_counter() - started
    fast = {name: score for name, score in fitted.items() if name not in NEIGHBOURS}
    slow = {name: score for name, score in fitted.items() if name in NEIGHBOURS}
    seen = observe(net, test, head=head)

    def forward() -> None:
        with torch.inference_mode():
            for inputs, _ in test:
                net(moved(inputs, net))
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def ours() -> Observations:
        again = observe(net, test, head=head)
        catalog.evaluate(fast, {"test": again})
        return again

    found = in_turns(repeats, {
        "forward": forward, "ours": ours, "observing": lambda: observe(net, test, head=head),
        "neighbours": lambda: catalog.evaluate(slow, {"test": seen}),
    })  # fmt: skip
    each, seconds = catalog.evaluate(fitted, {"test": seen})
    assert all(torch.isfinite(values["test"]).all() for values in each.values())
    table = Table(title=f"{where}: {count} pictures {shape}, {len(fast)} scores in one pass; fitted on {fit_count}")
    for column in ("", "seconds", "x forward"):
        table.add_column(column, justify="right")
    rows = {
        "plain forward": found["forward"], "observe, with all checks": found["observing"],
        "observe + all scores": found["ours"],
        f"nearest neighbours (bank {fit_count})": found["neighbours"], "fitting everything": fitting,
        **{f"  {name}": s for name, s in sorted(seconds.items(), key=lambda item: -item[1])[:6]},
    }  # fmt: skip
    for name, value in rows.items():
        table.add_row(name, f"{value:.3f}", f"{value / found['forward']:.3f}")
    Console().print(table)
    return {
        "ratio": found["ours"] / found["forward"], "observing": found["observing"] / found["forward"],
        "neighbours": found["neighbours"] / found["forward"],
        "fitting": fitting / (found["forward"] * fit_count / count),
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few pictures: does the script run?")
    options.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps")
    given = options.parse_args()
    smoke, device = given.smoke, devices.choose(given.device)
    sizes = (
        {"count": 512, "fit_count": 1200, "repeats": 2}
        if smoke
        else {"count": 10_000, "fit_count": 10_000, "repeats": 7}
    )
    lenet = measure(models.lenet(), (1, 28, 28), device=device, **sizes)
    sizes = (
        {"count": 64, "fit_count": 1200, "repeats": 1} if smoke else {"count": 1_000, "fit_count": 2_000, "repeats": 5}
    )
    resnet18 = measure(models.resnet18(), (3, 32, 32), device=device, **sizes)
    found = {"lenet": lenet, "resnet18": resnet18}
    if device.type != "cpu":
        for dtype in ("float32", "bfloat16"):
            found[f"resnet18, 224 px, {dtype}"] = measure(
                models.resnet18(), (3, 224, 224), device=device, dtype=dtype, **sizes
            )
    print(json.dumps({
        "device": devices.title(device),
        "scores_over_forward": {name: round(f["ratio"], 3) for name, f in found.items()},
        "observe_over_forward": {name: round(f["observing"], 3) for name, f in found.items()},
        "neighbours_over_forward": {name: round(f["neighbours"], 3) for name, f in found.items()},
        "fit_over_forward": {name: round(f["fitting"], 3) for name, f in found.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
