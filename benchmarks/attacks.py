"""What an attack costs and how strong it is: a step of PGD over one forward and backward pass; robust accuracies.

Targets: a step costs at most 1.05 passes in norm inf and 1.08 in norms 2 and 1, for LeNet on 28x28 and ResNet-20 on
32x32 pictures. The floor is the forward pass and the backward pass to the inputs alone, as many as the attack has
steps, on the same batch; what an attack does besides (start, projections, the last value) counts as its own. Foolbox
and torchattacks run the same attack (norm inf, same radius, step and number of steps) where they are installed (`make
references`); they return the last point, so they are compared with ours told to do that too (`best=False`). All take
turns in the same run, and medians of the ratios are printed.

Strength: accuracy in percent of two public networks on their first test pictures, where they are there (an
adversarially trained one of CIFAR-10, `CAVEAT_DATA/sdp/cifar_cnn_a_adv.safetensors`, and one of MNIST,
`eran/mnist_conv_small_nat.safetensors`), by attacks with as many steps, each with its processor time over that of PGD
as it was (steps of one length, on the log-odds). Foolbox and adv-lib, where it can be imported, attack beside ours.
Target: nowhere is the accuracy under our APGD above that under adv-lib's, by the better of its two losses, nor that
under our PGD in norm 1 above that under Foolbox's sparse descent.

Sparseness: the L1 size of the change towards the next class, how many values it has, and how often it gets there, by
`attacks.sparse` and by the peers' FMN in norm 1, in as many steps. The last line is JSON.

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
from tests.references.peers import load_adv_lib, load_peer

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


RADII = {
    "cifar_cnn_a_adv": {math.inf: 4 / 255, 2: 0.25, 1: 6.0},
    "mnist_conv_small_nat": {math.inf: 0.1, 2: 1.5, 1: 10.0},
}
STEPS_OF_SPARSE = 100


def public_networks(pictures: int) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """The networks that are here, each with pictures and labels."""
    found: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    for name, folder, channels, features, padding, source, mean, std in (
        ("cifar_cnn_a_adv", "sdp", 3, 2048, 1, "cifar10:test", (0.485, 0.456, 0.406), (0.225,) * 3),
        ("mnist_conv_small_nat", "eran", 1, 800, 0, "mnist:test", (0.1307,), (0.3081,)),
    ):
        weights = Path(os.environ.get("CAVEAT_DATA", "")) / folder / f"{name}.safetensors"
        if weights.is_file():
            net = nn.Sequential(
                nn.Conv2d(channels, 16, 4, 2, padding), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, padding), nn.ReLU(),
                nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10),
            )  # fmt: skip
            net.load_state_dict(load_file(weights))
            found[name] = (models.Normalized(net, mean, std).eval(), *next(iter(data.load(source, batch=pictures))))
    return found


def contenders(
    net: nn.Module, inputs: Tensor, labels: Tensor, ball: attacks.Ball, steps: int
) -> dict[str, Callable[[], Tensor]]:
    """Ours and the peers' that are here; the first is PGD as it was."""
    ours: dict[str, Callable[..., Tensor]] = {
        "pgd, one length": partial(attacks.pgd, schedule=attacks.constant, loss=attacks.losses.log_odds),
        "pgd": attacks.pgd,
        "pgd, log-odds": partial(attacks.pgd, loss=attacks.losses.log_odds),
        "pgd, margin": partial(attacks.pgd, loss=attacks.losses.margin),
        "apgd": attacks.apgd,
        "apgd_dlr": attacks.apgd_dlr,
    }
    runs: dict[str, Callable[[], Tensor]] = {
        name: partial(attack, net, inputs, labels, ball, generator=torch.Generator().manual_seed(0), steps=steps)
        for name, attack in ours.items()
    }
    if foolbox := load_peer("foolbox"):
        kind = {math.inf: "LinfPGD", 2: "L2PGD", 1: "SparseL1DescentAttack"}[ball.norm]
        theirs, wrapped = getattr(foolbox.attacks, kind)(steps=steps), foolbox.PyTorchModel(net, bounds=(0, 1))
        runs[f"foolbox {kind}"] = lambda: theirs(wrapped, inputs, labels, epsilons=ball.radius)[1]
    if adv_lib := load_adv_lib():
        for loss in ("ce", "dlr"):
            runs[f"adv-lib apgd, {loss}"] = partial(
                adv_lib.apgd, net, inputs, labels, ball.radius, ball.norm, n_iter=steps, loss_function=loss
            )
    return runs


def strengths(
    net: nn.Module, inputs: Tensor, labels: Tensor, radii: dict[float, float], steps: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """By norm and attack the accuracy in percent, and the time over that of PGD with steps of one length."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for norm, radius in radii.items():
        row, first = dict[str, tuple[float, float]](), 0.0
        for name, run in contenders(net, inputs, labels, attacks.Ball(norm, radius), steps).items():
            torch.manual_seed(0)  # for the peers
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


def sparseness(net: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> dict[str, dict[str, float]]:
    """By attack the mean L1 size and number of values of the changes that reach the next class, in % how many do."""
    targets = (labels + 1) % 10
    runs = {"ours": lambda: attacks.sparse(net, inputs, targets, steps=steps).inputs}
    if foolbox := load_peer("foolbox"):
        theirs, wrapped = foolbox.attacks.L1FMNAttack(steps=steps), foolbox.PyTorchModel(net, bounds=(0, 1))
        wanted = foolbox.criteria.TargetedMisclassification(targets)
        runs["foolbox"] = lambda: theirs(wrapped, inputs, wanted, epsilons=None)[0]
    if adv_lib := load_adv_lib():
        runs["adv-lib"] = lambda: adv_lib.fmn(net, inputs, targets, 1, targeted=True, steps=steps)
    found: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        moved = run()
        there = net(moved).argmax(1) == targets
        change = (moved - inputs).flatten(1)[there].abs()
        found[name] = {
            "l1": round(float(change.sum(1).mean()), 2),
            "values": round(float((change > 1e-6).sum(1).float().mean()), 1),
            "reached": round(100 * float(there.float().mean()), 1),
        }
    return found


def above(
    strong: dict[str, dict[str, dict[str, dict[str, tuple[float, float]]]]], ours: str, theirs: str
) -> float | None:
    """By how many points the accuracy under an attack of ours is above that under a peer's best, where it is most."""
    gaps = [
        row[ours][0] - min(others)
        for sizes in strong.values() for norms in sizes.values() for row in norms.values()
        if (others := [accuracy for who, (accuracy, _) in row.items() if who.startswith(theirs)])
    ]  # fmt: skip
    return round(max(gaps), 1) if gaps else None


COLUMNS = {
    "floor_ms": "floor ms", "linf": "linf", "l2": "l2", "l1": "l1", "foolbox_over_ours": "foolbox / ours",
    "torchattacks_over_ours": "torchattacks / ours", "broken_ours": "broken by ours", "broken_foolbox": "foolbox",
    "broken_torchattacks": "torchattacks",
}  # fmt: skip


def costs(pictures: int, steps: int, repeats: int) -> dict[str, dict[str, float]]:
    """What a step costs, by network; printed as a table."""
    table = Table(title=f"PGD, {steps} steps, {pictures} pictures, {torch.get_num_threads()} thread(s)")
    for column in ("", *COLUMNS.values()):
        table.add_column(column, justify="right")
    results: dict[str, dict[str, float]] = {}
    for name in NETS:
        f = results[name] = measure(name, pictures=pictures, steps=steps, repeats=repeats)
        table.add_row(name, *(f"{f[key]:.3f}" if key in f else "not here" for key in COLUMNS))
    Console().print(table)
    return results


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--smoke", action="store_true", help="a few pictures: does the script run?")
    options.add_argument("--pictures", type=int, default=64)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")  # the peers' own
    pictures, steps, repeats = (8, 4, 1) if chosen.smoke else (chosen.pictures, chosen.steps, chosen.repeats)
    results = costs(pictures, steps, repeats)
    missing = [peer for peer in ("foolbox", "torchattacks") if f"{peer}_over_ours" not in results["lenet"]]
    if missing:
        print(f"not installed here, so not compared: {', '.join(missing)} (make references)")
    counts = (8,) if chosen.smoke else (64, 128)
    there = public_networks(max(counts))
    strong = {
        name: {str(n): strengths(net, inputs[:n], labels[:n], RADII[name], steps) for n in counts}
        for name, (net, inputs, labels) in there.items()
    }
    for name, sizes in strong.items():
        for n, norms in sizes.items():
            for norm, row in norms.items():
                told = ", ".join(f"{who} {acc} % (x{cost})" for who, (acc, cost) in row.items())
                print(f"{name}, {n} pictures, {norm}: {told}")
    few, passes = (4, 10) if chosen.smoke else (32, STEPS_OF_SPARSE)
    sparse = {name: sparseness(net, x[:few], y[:few], passes) for name, (net, x, y) in there.items()}
    print(f"towards the next class in {passes} steps: {sparse}")
    print(json.dumps({
        "robust_accuracy": {
            name: {n: {norm: {who: acc for who, (acc, _) in row.items()} for norm, row in norms.items()}
                   for n, norms in sizes.items()}
            for name, sizes in strong.items()
        },
        "above": {name: gap for name, gap in {
            "adv_lib": above(strong, "apgd", "adv-lib"),
            "foolbox_l1": above(strong, "pgd", "foolbox SparseL1"),
        }.items() if gap is not None},
        "sparse": sparse,
        "pgd_step": {name: round(f["linf"], 3) for name, f in results.items()},
        "pgd_step_l2": {name: round(f["l2"], 3) for name, f in results.items()},
        "pgd_step_l1": {name: round(f["l1"], 3) for name, f in results.items()},
        **{f"{peer}_over_ours": {name: round(f[f"{peer}_over_ours"], 3) for name, f in results.items()}
           for peer in ("foolbox", "torchattacks") if peer not in missing},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
