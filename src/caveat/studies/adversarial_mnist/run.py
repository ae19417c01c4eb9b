"""Adversarial examples on MNIST: four ways of training a small network and an MLP, under attack."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caveat import attacks, data, models
from caveat.attacks import Ball
from caveat.data import Source
from caveat.files import write_atomically
from caveat.objectives import Adversarial, Objective, Trades, cross_entropy
from caveat.records.findings import Findings, Scale, Shot
from caveat.studies.adversarial_mnist.figures import strip
from caveat.studies.adversarial_mnist.findings import PENALTY, PLAIN, Size, told
from caveat.studies.kit import common
from caveat.training import fit

__all__ = ["run"]

SIZES: dict[Scale, Size] = {
    "smoke": Size(set="digits", radius=0.1, train=None, epochs=6, warm=1, inner=2, width=8, hidden=32, steps=5,
                  restarts=2, judged=40, few=4, priced=30, curve=10, radii=(0.0, 0.1)),
    "small": Size(set="mnist", radius=0.3, train=15_000, epochs=5, warm=2, inner=7, width=16, hidden=128, steps=40,
                  restarts=5, judged=500, few=100, priced=100, curve=200, radii=(0.0, 0.05, 0.1, 0.2, 0.3, 0.4)),
    "full": Size(set="mnist", radius=0.3, train=None, epochs=25, warm=2, inner=40, width=32, hidden=1024, steps=40,
                 restarts=20, judged=10_000, few=1000, priced=200, curve=1000,
                 radii=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
}  # fmt: skip


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train the networks, attack each, show the examples of each to all; see `studies`."""
    size = SIZES[scale]
    place = folder / f"{scale}-{seed}"
    whole = data.load(f"{size.set}:train")
    train = data.in_memory(data.subset(whole, torch.arange(min(size.train or len(whole), len(whole)))))
    test = data.load(f"{size.set}:test")
    inputs, labels = common.pictures(data.subset(test, torch.arange(min(size.judged, len(test)))))
    nets: dict[str, nn.Module] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in _objectives(size, size.radius):
        say(f"{name}: training")
        nets[name], seconds = _trained(name, train, size, seed, place)
        say(f"{name}: attacking")
        own = place / _slug(name)
        judged = _kept(own / "figures.json", partial(_judge, nets[name], inputs, labels, size, seed))
        sparse = _kept(own / "l1.json", partial(_few_pixels, nets[name], inputs, labels, size))
        found[name] = judged | sparse | {"seconds": seconds}
    say("transfer")
    crossed = _kept(place / "transfer.json", lambda: _crossed(nets, inputs, labels, size, seed))
    shots = [_shot(name, nets[name], inputs, labels, size, seed) for name in (PLAIN, "PGD-trained")]
    return told(scale, seed, size, found, crossed, shots, pixels=math.prod(inputs.shape[1:]))


def _objectives(size: Size, radius: float) -> dict[str, Objective]:
    """What each network is trained with, against changes of that radius."""
    return {
        PLAIN: cross_entropy,
        "plain, other seed": cross_entropy,
        "MLP": cross_entropy,
        "FGSM-trained": Adversarial(radius=radius, steps=1, step=1.25 * radius),
        "PGD-trained": Adversarial(radius=radius, steps=size.inner),
        "TRADES": Trades(radius=radius, steps=size.inner),
    }


def _trained(name: str, train: Source, size: Size, seed: int, place: Path) -> tuple[nn.Module, float]:
    """Adam with a falling rate; the radius grows over the first epochs, without which training may not start."""
    own = seed + (1000 if name == "plain, other seed" else 0)
    channels, side = train.shape[:2]
    generator = torch.Generator().manual_seed(own)
    if name == "MLP":
        model: nn.Module = models.mlp(channels=channels, size=side, generator=generator)
    else:
        model = models.lenet(
            channels=channels, size=side, width=size.width, hidden=size.hidden, generator=generator
        )  # fmt: skip
    batches = data.shuffled(train, batch=64, generator=torch.Generator().manual_seed(own + 1), drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.epochs * len(batches), eta_min=1e-5)
    noise = torch.Generator().manual_seed(own + 2)
    radii = [size.radius * (phase + 1) / (size.warm + 1) for phase in range(size.warm)] + [size.radius]
    seconds = 0.0
    for phase, radius in enumerate(radii):
        history = fit(
            model, batches, _objectives(size, radius)[name], optimizer=optimizer, schedule=schedule, generator=noise,
            epochs=1 if phase < size.warm else size.epochs - size.warm, checkpoint_every=100,
            checkpoint=place / _slug(name) / f"phase-{phase}.safetensors", progress=False,
        )  # fmt: skip
        seconds += sum(history.seconds)
    return model.eval(), seconds


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


def _few_pixels(model: nn.Module, inputs: Tensor, labels: Tensor, size: Size) -> dict[str, Any]:
    """The L1 attack towards the next digit, its penalty searched for and fixed."""
    few, targets = inputs[: size.few], (labels[: size.few] + 1) % 10
    return {
        "search": _sizes(attacks.sparse(model, few, targets, steps=size.priced)),
        "fixed": _sizes(attacks.penalised(model, few, targets, penalty=PENALTY, steps=2 * size.priced)),
    }


def _sizes(found: attacks.Attacked) -> dict[str, float]:
    """Share of targets reached in %, and how large the changes are where they were."""
    reached = found.success & (found.l0 > 0)  # not those that were answered so from the start
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


def _shot(name: str, model: nn.Module, inputs: Tensor, labels: Tensor, size: Size, seed: int) -> Shot:
    """The first picture of each digit that is answered rightly: as it is, and after each attack."""
    generator = torch.Generator().manual_seed(seed + 5)
    with torch.inference_mode():
        right = (model(inputs).argmax(1) == labels).nonzero().squeeze(1).tolist()
    first = {int(labels[row]): row for row in reversed(right)}
    rows = torch.tensor([first[digit] for digit in sorted(first)])
    own, truth, ball = inputs[rows], labels[rows], Ball(math.inf, size.radius)
    shown = [
        own,
        attacks.fgsm(model, own, truth, ball, generator=generator),
        attacks.pgd(model, own, truth, ball, generator=generator, steps=size.steps),
        attacks.sparse(model, own, (truth + 1) % 10, steps=size.priced).inputs,
    ]
    with torch.inference_mode():
        answers = [model(row).argmax(1) for row in shown]
    texts = ("original", "FGSM", f"PGD-{size.steps}", "L1, to the next digit")
    said = [
        f"{text}: answered " + " ".join(str(int(answer)) for answer in row)
        for text, row in zip(texts, answers, strict=True)
    ]
    return Shot(title=f"{name} network", png=strip(shown, answers, truth), caption="By row. " + "; ".join(said) + ".")


def _right(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        return 100 * float((model(inputs).argmax(1) == labels).double().mean())


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier run wrote, or what `make` gives, written for the next."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(make()))
    return json.loads(path.read_text())


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")
