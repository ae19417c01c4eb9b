"""Adversarial examples on MNIST: six ways of training a small network, and an MLP, under attack and certified."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caveat import attacks, data
from caveat.attacks import Ball
from caveat.audits import certified
from caveat.bounds.outputs import traced
from caveat.records.findings import Findings, Scale
from caveat.studies.adversarial_mnist.figures import shot
from caveat.studies.adversarial_mnist.findings import PENALTY, conclude
from caveat.studies.adversarial_mnist.training import PLAIN, SIZES, Size, objectives, slug, trained
from caveat.studies.kit import common
from caveat.studies.kit import folder as folders

__all__ = ["run"]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train the networks, attack each, show the examples of each to all; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="adversarial-mnist", scale=scale, seed=seed, size=size)
    whole = data.load(f"{size.set}:train")
    train = data.in_memory(data.subset(whole, torch.arange(min(size.train or len(whole), len(whole)))))
    test = data.load(f"{size.set}:test")
    every = common.pictures(test)
    inputs, labels = (part[: size.judged] for part in every)
    nets: dict[str, nn.Module] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in objectives(size, size.radius):
        say(f"{name}: training")
        nets[name], seconds = trained(name, train, size, seed, folder)
        say(f"{name}: attacking")
        own = folder / slug(name)
        judged = folders.stored(own / "figures.json", partial(_judge, nets[name], inputs, labels, size, seed))
        sparse = folders.stored(own / "l1.json", partial(_few_pixels, nets[name], inputs, labels, size))
        sure = folders.stored(own / "certified.json", partial(_certified, nets[name], *every, size, seed))
        found[name] = judged | sparse | sure | {"seconds": seconds}
    say("transfer")
    crossed = folders.stored(folder / "transfer.json", lambda: _crossed(nets, inputs, labels, size, seed))
    shots = [shot(name, nets[name], inputs, labels, size, seed) for name in (PLAIN, "PGD-trained")]
    return conclude(scale, seed, size, found, crossed, shots, pixels=math.prod(inputs.shape[1:]))


def _judge(model: nn.Module, inputs: Tensor, labels: Tensor, size: Size, seed: int) -> dict[str, Any]:
    """Accuracy in % clean, under noise and attacks, and along radii."""
    generator = torch.Generator().manual_seed(seed + 3)
    ball = Ball(math.inf, size.radius)
    signs = torch.randint(2, inputs.shape, generator=generator) * 2 - 1
    noisy = (inputs + size.radius * signs).clamp(0, 1)
    worst = attacks.pgd(
        model, inputs, labels, ball, generator=generator, steps=size.steps, restarts=size.restarts, skip_broken=True
    )
    curve: list[tuple[float, float, float]] = []
    part, truth = inputs[: size.curve], labels[: size.curve]
    for radius in size.radii:
        one = attacks.fgsm(model, part, truth, ball.resized(radius), generator=generator)
        many = attacks.pgd(model, part, truth, ball.resized(radius), generator=generator, steps=size.steps)
        curve.append((radius, _right(model, one, truth), _right(model, many, truth)))
    return {
        "clean": _right(model, inputs, labels),
        "noise": _right(model, noisy, labels),
        "fgsm": _right(model, attacks.fgsm(model, inputs, labels, ball, generator=generator), labels),
        "pgd": _right(model, worst, labels),
        "pgd pixels": float((worst != inputs).flatten(1).sum(1).double().median()),
        "curve": curve,
    }


def _certified(model: nn.Module, inputs: Tensor, labels: Tensor, size: Size, seed: int) -> dict[str, Any]:
    """Accuracy in % that is proved within a third of the radius and within it, and under the strongest attack.

    By intervals of all pictures. `proved` refuses a network of which an attack broke what was proved: the sandwich
    holds on every picture that is attacked.
    """
    balls = [Ball(math.inf, radius, 0, 1) for radius in (size.radius / 3, size.radius)]
    broken_at = torch.full((len(inputs),), math.inf)
    attacked = slice(size.judged)
    for ball in reversed(balls):
        generator = torch.Generator().manual_seed(seed + 6)
        worst = attacks.pgd(model, inputs[attacked], labels[attacked], ball, generator=generator, steps=size.steps)
        with torch.inference_mode():
            broken_at[attacked][model(worst).argmax(1) != labels[attacked]] = ball.radius
    few = slice(size.struck)
    generator = torch.Generator().manual_seed(seed + 7)
    struck = attacks.strongest(
        model, inputs[few], labels[few], balls[1], generator=generator, steps=min(100, size.priced),
        queries=size.queries,
    )  # fmt: skip
    broken_at[few] = torch.where(struck.broken, broken_at[few].clamp_max(balls[1].radius), broken_at[few])
    with torch.inference_mode():
        broken_at[model(inputs).argmax(1) != labels] = 0
    proved = partial(certified.proved, model, balls=balls, say=lambda _: None, graph=traced(model, inputs[few]))
    intervals = proved(inputs, labels, broken_at, method="interval")
    lines = proved(inputs[few], labels[few], broken_at[few], method="deeppoly")
    return {
        "strongest": 100 - 100 * float(struck.broken.double().mean()),
        "notes": list(struck.notes),
        "interval": [100 * share for share in intervals],
        "deeppoly": [100 * share for share in lines],
    }


def _few_pixels(model: nn.Module, inputs: Tensor, labels: Tensor, size: Size) -> dict[str, Any]:
    """The L1 attacks towards the next digit: the least change there is, and that of a fixed penalty."""
    few, targets = inputs[: size.few], (labels[: size.few] + 1) % 10
    return {
        "search": _sizes(attacks.sparse(model, few, targets, steps=size.priced)),
        "fixed": _sizes(attacks.penalised(model, few, targets, penalty=PENALTY, steps=2 * size.priced)),
    }


def _sizes(found: attacks.Attacked) -> dict[str, float]:
    """Share of targets reached in %, and how large the changes are where they were."""
    reached = found.success & (found.l0 > 0)  # not those that were predicted so from the start
    if not bool(reached.any()):
        return {"reached": 100 * float(found.success.double().mean()), "pixels": math.nan, "l1": math.nan}
    return {
        "reached": 100 * float(found.success.double().mean()),
        "pixels": float(found.l0[reached].double().median()),
        "l1": float(found.l1[reached].double().mean()),
    }


def _crossed(nets: dict[str, nn.Module], inputs: Tensor, labels: Tensor, size: Size, seed: int) -> dict[str, Any]:
    """Success in % of each network's examples on each, at a third of the radius and at the whole."""
    crossed: dict[str, Any] = {}
    for radius in (size.radius / 3, size.radius):
        found = attacks.transfer(
            nets, inputs, labels, Ball(math.inf, radius), generator=torch.Generator().manual_seed(seed + 4),
            attack=partial(attacks.pgd, steps=size.steps),
        )  # fmt: skip
        crossed[f"{radius:.2g}"] = (100 * found.success).tolist()
    return crossed


def _right(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        return 100 * float((model(inputs).argmax(1) == labels).double().mean())
