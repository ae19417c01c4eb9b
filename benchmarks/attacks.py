"""What an attack costs and how strong it is: a step of PGD over one forward and backward pass; robust accuracies.

Targets: a step costs at most 1.05 passes in norm inf and 1.08 in norms 2 and 1, for LeNet on 28x28 and ResNet-20 on
32x32 pictures. The floor is the forward pass and the backward pass to the inputs alone, as many as the attack has
steps, on the same batch; what an attack does besides (start, projections, the last value) counts as its own. Foolbox
and torchattacks run the same attack (norm inf, same radius, step and number of steps) where they are installed (`make
references`); they return the last point, so they are compared with ours told to do that too (`best=False`). All take
turns in the same run, and medians of the ratios are printed.

Strength: accuracy in percent of a public, adversarially trained network on the first CIFAR-10 test pictures
(`CAVEAT_DATA/sdp/cifar_cnn_a_adv.safetensors`, where it is there), by attacks with as many steps, each with its
processor time over that of PGD as it was (steps of one length, on the log-odds). Foolbox attacks beside ours. The last
line is JSON.

    python benchmarks/attacks.py [--smoke] [--pictures 64] [--steps 40] [--threads 1]
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from caveat import attacks, data, models

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
            net,
            inputs,
            labels,
            ball,
            generator=torch.Generator().manual_seed(2),
            steps=steps,
            best=best,
            schedule=attacks.constant,
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


def public_network() -> tuple[nn.Module, Tensor, Tensor] | None:
    """The network, pictures and labels; None where there are none."""
    weights = Path(os.environ.get("CAVEAT_DATA", "")) / "sdp" / "cifar_cnn_a_adv.safetensors"
    if not weights.is_file():
        return None
    net = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    net.load_state_dict(load_file(weights))
    inputs, labels = next(iter(data.load("cifar10:test", batch=128)))
    return models.Normalized(net, (0.485, 0.456, 0.406), (0.225,) * 3).eval(), inputs, labels


def strengths(pictures: int, steps: int) -> dict[str, dict[str, tuple[float, float]]]:
    """By norm and attack the accuracy in percent, and the time over that of PGD with steps of one length."""
    there = public_network()
    if there is None:
        return {}
    net, inputs, labels = there[0], there[1][:pictures], there[2][:pictures]
    before, margin = attacks.constant, attacks.losses.margin
    ours = {
        "pgd, one length": partial(attacks.pgd, schedule=before),
        "pgd": attacks.pgd,
        "pgd, margin": partial(attacks.pgd, loss=margin),
        "apgd": attacks.apgd,
        "apgd_dlr": attacks.apgd_dlr,
    }
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for norm, radius in {math.inf: 4 / 255, 2: 0.25, 1: 6.0}.items():
        ball, row = attacks.Ball(norm, radius), dict[str, tuple[float, float]]()
        runs: dict[str, Callable[[], Tensor]] = {
            name: partial(attack, net, inputs, labels, ball, generator=torch.Generator().manual_seed(0), steps=steps)
            for name, attack in ours.items()
        }
        if foolbox := load_peer("foolbox"):
            kind = {math.inf: "LinfPGD", 2: "L2PGD", 1: "SparseL1DescentAttack"}[norm]
            theirs, wrapped = getattr(foolbox.attacks, kind)(steps=steps), foolbox.PyTorchModel(net, bounds=(0, 1))
            runs[f"foolbox {kind}"] = lambda t=theirs, w=wrapped, r=radius: t(w, inputs, labels, epsilons=r)[1]
        first = 0.0
        for name, run in runs.items():
            start = time.process_time()
            moved = run()
            spent = time.process_time() - start
            first = first or spent
            row[name] = (
                round(100 * float((net(moved).argmax(1) == labels).float().mean()), 1),
                round(spent / first, 2),
            )
        found[f"l{norm:g}"] = row
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
    strong = {n: strengths(n, steps) for n in ((8,) if chosen.smoke else (64, 128))}
    for n, norms in strong.items():
        for norm, row in norms.items():
            print(f"{n} pictures, {norm}: " + ", ".join(f"{who} {acc} % (x{cost})" for who, (acc, cost) in row.items()))
    print(json.dumps({
        "robust_accuracy": {
            str(n): {norm: {who: acc for who, (acc, _) in row.items()} for norm, row in norms.items()}
            for n, norms in strong.items()
        },
        "pgd_step": {name: round(f["linf"], 3) for name, f in results.items()},
        "pgd_step_l2": {name: round(f["l2"], 3) for name, f in results.items()},
        "pgd_step_l1": {name: round(f["l1"], 3) for name, f in results.items()},
        **{f"{peer}_over_ours": {name: round(f[f"{peer}_over_ours"], 3) for name, f in results.items()}
           for peer in ("foolbox", "torchattacks") if peer not in missing},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
