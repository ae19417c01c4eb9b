"""What an attack costs: a step of PGD over one forward and backward pass, and the same attack by two peers over ours.

Target: at most 1.10 for LeNet on 28x28 and ResNet-20 on 32x32 pictures, norm inf; the other norms are reported. The
floor is the forward pass and the backward pass to the inputs alone, as many as the attack has steps, on the same batch;
what an attack does besides (start, projections, the last value) counts as its own. Foolbox and torchattacks run the
same attack (norm inf, same radius, step and number of steps) where they are installed (`make references`); they return
the last point, so they are compared with ours told to do that too (`best=False`); the default, which also knows what
the input and the last point are worth, is what `pgd_step` measures. All take turns in the same run, and medians of the
ratios are printed. Also the share of answers each changes. The last
line is JSON.

    python benchmarks/attacks.py [--smoke] [--pictures 64] [--steps 40] [--threads 1]
"""

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from caveat import attacks, models

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.references.peers import load_peer

NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "lenet": (models.lenet, (1, 28, 28)),
    "resnet20": (models.resnet20, (3, 32, 32)),
}
RADIUS = 0.02


def peer_attacks(net: nn.Module, steps: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The peers that are here, each as a function of inputs and labels."""
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    if foolbox := load_peer("foolbox"):
        wrapped = foolbox.PyTorchModel(net, bounds=(0, 1))
        theirs = foolbox.attacks.LinfPGD(steps=steps, rel_stepsize=2.5 / steps)
        found["foolbox"] = lambda inputs, labels: theirs(wrapped, inputs, labels, epsilons=RADIUS)[1]
    if torchattacks := load_peer("torchattacks"):
        found["torchattacks"] = torchattacks.PGD(net, eps=RADIUS, alpha=2.5 * RADIUS / steps, steps=steps)
    return found


def floor(net: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> None:
    for _ in range(steps):
        points = inputs.detach().requires_grad_()
        torch.autograd.grad(cross_entropy(net(points), labels, reduction="sum"), points)


def seconds(action: Callable[[], object]) -> float:
    """Of the processor, not of the clock: others may use the machine."""
    started = time.process_time()
    action()
    return time.process_time() - started


def measure(name: str, *, pictures: int, steps: int, repeats: int) -> dict[str, float]:
    build, shape = NETS[name]
    net = build(generator=torch.Generator().manual_seed(0)).eval()
    inputs = torch.rand(pictures, *shape, generator=torch.Generator().manual_seed(1))
    labels = net(inputs).argmax(1)

    def ours(norm: float, *, best: bool = True) -> Tensor:
        radius = {1: 5.0, 2: 0.5, math.inf: RADIUS}[norm]
        ball = attacks.Ball(norm, radius)
        return attacks.pgd(
            net, inputs, labels, ball, generator=torch.Generator().manual_seed(2), steps=steps, best=best
        )

    actions: dict[str, Callable[[], object]] = {"floor": lambda: floor(net, inputs, labels, steps)}
    actions |= {f"l{norm:g}": lambda norm=norm: ours(norm) for norm in (math.inf, 2, 1)}
    actions["last"] = lambda: ours(math.inf, best=False)
    others = peer_attacks(net, steps)
    actions |= {peer: lambda attack=attack: attack(inputs, labels) for peer, attack in others.items()}
    taken: dict[str, list[float]] = {key: [] for key in actions}
    for repeat in range(repeats + 1):
        order = list(actions) if repeat % 2 else list(reversed(actions))  # nobody is always first
        for key in order:
            spent = seconds(actions[key])
            if repeat:  # the first round warms up
                taken[key].append(spent)

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(taken[above], taken[below], strict=True))

    found = {key: ratio(key, "floor") for key in actions if key.startswith("l")}
    found |= {f"{peer}_over_ours": ratio(peer, "last") for peer in others}
    found["floor_ms"] = 1e3 * statistics.median(taken["floor"]) / steps / pictures
    broken = {"ours": ours(math.inf)} | {peer: attack(inputs, labels) for peer, attack in others.items()}
    for who, moved in broken.items():
        found[f"broken_{who}"] = float((net(moved).argmax(1) != labels).float().mean())
    return found


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few pictures: does the script run?")
    options.add_argument("--pictures", type=int, default=64)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    pictures, steps, repeats = (8, 4, 1) if chosen.smoke else (chosen.pictures, chosen.steps, chosen.repeats)
    table = Table(title=f"PGD, {steps} steps, {pictures} pictures, {chosen.threads} thread(s)")
    columns = (
        "floor ms",
        "linf",
        "l2",
        "l1",
        "foolbox / ours",
        "torchattacks / ours",
        "broken by ours",
        "foolbox",
        "torchattacks",
    )
    for column in ("", *columns):
        table.add_column(column, justify="right")
    results: dict[str, dict[str, float]] = {}
    keys = (
        "floor_ms",
        "linf",
        "l2",
        "l1",
        "foolbox_over_ours",
        "torchattacks_over_ours",
        "broken_ours",
        "broken_foolbox",
        "broken_torchattacks",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        for name in NETS:
            f = results[name] = measure(name, pictures=pictures, steps=steps, repeats=repeats)
            table.add_row(name, *(f"{f[key]:.3f}" if key in f else "not here" for key in keys))
    Console().print(table)
    missing = [peer for peer in ("foolbox", "torchattacks") if f"{peer}_over_ours" not in results["lenet"]]
    if missing:
        print(f"not installed here, so not compared: {', '.join(missing)} (make references)")
    print(json.dumps({
        "pgd_step": {name: round(f["linf"], 3) for name, f in results.items()},
        "pgd_step_l2": {name: round(f["l2"], 3) for name, f in results.items()},
        "pgd_step_l1": {name: round(f["l1"], 3) for name, f in results.items()},
        **{f"{peer}_over_ours": {name: round(f[f"{peer}_over_ours"], 3) for name, f in results.items()}
           for peer in ("foolbox", "torchattacks") if peer not in missing},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
