"""What posteriors cost: tracking over the plain training step, and many networks over one forward pass.

Targets: 1.10 a step for TRADI and for SWAG (a snapshot at *every* step, the dearest case) on LeNet and ResNet-20 at
batch 128; 6 forward passes for MC dropout with 16 draws on a small CNN at batch 512. Floor and ours take turns in the
same run; medians. Torch-uncertainty's SWAG beside ours where `make references` has put it. The last line is JSON.
"""

import argparse
import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional
from turns import in_turns

from caveat import models, posteriors
from caveat.posteriors import dropout, ensemble, swag, tradi

REFERENCES = Path(__file__).parents[1] / ".references"


def torch_uncertainty_swag(model: nn.Module) -> Callable[[], object] | None:
    """One update of torch-uncertainty's SWAG, statistics only: its package wants lightning, its file does not."""
    folder = REFERENCES / "torch_uncertainty"
    if not folder.is_dir():
        return None
    for name, path in (("torch_uncertainty", folder), ("torch_uncertainty.methods", folder / "methods")):
        package = sys.modules.setdefault(name, types.ModuleType(name))
        package.__path__ = [str(path)]
    made = importlib.import_module("torch_uncertainty.methods.swag").SWAG(model, 0, 1, num_estimators=0)
    return lambda: made.update_wrapper(1)


def tracking(model: nn.Module, shape: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Seconds of a step, and of a step with each tracker, as multiples of the step."""
    inputs, labels = torch.rand(128, *shape), torch.randint(10, (128,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    watching = {"tradi_step": tradi.start(model, optimizer), "swag_step": swag.start(model, every=1)}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    def tracked(tracker: tradi.Tracker | swag.Tracker) -> Callable[[], object]:
        def both() -> None:
            step()
            tracker.update(model)

        return both

    actions: dict[str, Callable[[], object]] = {"plain": step}
    actions |= {name: tracked(tracker) for name, tracker in watching.items()}
    if their_update := torch_uncertainty_swag(model):

        def theirs() -> None:
            step()
            their_update()

        actions["torch_uncertainty_swag_step"] = theirs
    seconds = in_turns(repeats, actions)
    return {name: value / seconds["plain"] for name, value in seconds.items() if name != "plain"}


class SmallCNN(nn.Module):
    """Convolutions 1-16-32, then 1,568-128-10, dropout before the last: what other libraries were measured on."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(),
        )  # fmt: skip
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(128, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(inputs)))


def running(batch: int, repeats: int) -> dict[str, float]:
    """Many networks over one forward pass of the whole batch, and over the same pass in chunks of 64."""
    networks = [SmallCNN().eval() for _ in range(5)]
    net, inputs = networks[0], torch.rand(batch, 1, 28, 28)
    generator = torch.Generator().manual_seed(0)
    members, heads = ensemble.of(networks), ensemble.of(networks, only=["head"])

    def forward() -> None:
        with torch.inference_mode():
            net(inputs)

    def chunked() -> None:
        with torch.inference_mode():
            for chunk in inputs.split(64):
                net(chunk)

    seconds = in_turns(repeats, {
        "forward": forward,
        "chunked": chunked,
        "dropout16": lambda: posteriors.predict(dropout.of(net), net, inputs, generator=generator, draws=16),
        "ensemble5": lambda: posteriors.predict(members, net, inputs, generator=generator),
        "heads5": lambda: posteriors.predict(heads, net, inputs, generator=generator),
    })  # fmt: skip
    made = {f"{name}_forward": seconds[name] / seconds["forward"] for name in ("dropout16", "ensemble5", "heads5")}
    return made | {"ensemble5_over_5_chunked_passes": seconds["ensemble5"] / (5 * seconds["chunked"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="few repeats and small batches, to see that it runs")
    options = parser.parse_args()
    repeats, batch = (2, 64) if options.smoke else (options.repeats, 512)
    found = {
        "lenet": tracking(models.lenet(generator=torch.Generator().manual_seed(0)), (1, 28, 28), repeats),
        "resnet20": tracking(models.resnet20(generator=torch.Generator().manual_seed(0)), (3, 32, 32), repeats),
        f"batch {batch}": running(batch, repeats),
    }
    table = Table("what", *found, title="over the plain step, or over one forward pass")
    for row in dict.fromkeys(name for figures in found.values() for name in figures):
        table.add_row(row, *(f"{figures[row]:.2f}" if row in figures else "" for figures in found.values()))
    Console().print(table)
    last = {name: max(found["lenet"][name], found["resnet20"][name]) for name in ("tradi_step", "swag_step")} | found[
        f"batch {batch}"
    ]
    each = {name: {key: round(value, 3) for key, value in figures.items()} for name, figures in found.items()}
    flat = {name: round(value, 3) for name, value in last.items()}
    print(json.dumps({"threads": torch.get_num_threads(), **flat, "each": each}))


if __name__ == "__main__":
    main()
