"""Certified OOD detection on MNIST: plain training, outlier exposure, ACET and GOOD, attacked and guaranteed."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from caveat import attacks
from caveat.attacks import Ball, losses, uniform
from caveat.attacks.ascent import Start
from caveat.attacks.noise import Noise
from caveat.bounds.confidence import guaranteed_auroc, highest_confidence
from caveat.bounds.outputs import traced
from caveat.records.findings import Findings, Scale
from caveat.studies.certified_ood_mnist.findings import conclude
from caveat.studies.certified_ood_mnist.training import SIZES, Set, Size, objectives, set_of, slug, trained
from caveat.studies.kit import folder as folders

__all__ = ["run", "towards"]

Method = Literal["interval", "deeppoly"]
TITLES: dict[Method, str] = {"interval": "IBP", "deeppoly": "CROWN"}


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train the networks, attack and bound each one's confidence around OOD inputs; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="certified-ood-mnist", scale=scale, seed=seed, size=size)
    inside = set_of(size, seed)
    found: dict[str, dict[str, Any]] = {}
    for name in objectives(size):
        say(f"{name}: training")
        model, seconds = trained(name, inside, size, seed, folder)
        say(f"{name}: attacking and bounding")
        judged = folders.stored(folder / slug(name) / "figures.json", partial(_judge, name, model, inside, size, seed))
        found[name] = judged | {"seconds": seconds}
    return conclude(scale, seed, size, found)


def _judge(name: str, model: nn.Module, inside: Set, size: Size, seed: int) -> dict[str, Any]:
    """Accuracy in %, and by OOD set what is detected of it."""
    inputs, labels = inside.test
    logits = _logits(model, inputs)
    known = logits.softmax(dim=1).amax(dim=1)
    methods: tuple[Method, ...] = ("interval", "deeppoly") if name in size.lines else ("interval",)
    return {
        "accuracy": 100 * float((logits.argmax(dim=1) == labels).double().mean()),
        "ood": {
            title: _detected(model, known, inputs, pictures, size, seed, methods)
            for title, pictures in inside.ood.items()
        },
    }


def _detected(  # a network, both sides, how and how much
    model: nn.Module,
    known: Tensor,
    digits: Tensor,
    pictures: Tensor,
    size: Size,
    seed: int,
    methods: tuple[Method, ...],
) -> dict[str, Any]:
    """AUROC in %, ties against the detector: of the pictures, under attack, guaranteed; attacks that broke a bound."""
    ball = Ball(math.inf, size.radius)
    labels = torch.zeros(len(pictures), dtype=torch.long)  # confidence has none
    worst = attacks.pgd(
        model, pictures, labels, ball, loss=losses.confidence, steps=size.steps, restarts=size.restarts,
        start=towards(digits), generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    reached = _logits(model, worst).softmax(dim=1).amax(dim=1)
    bound = partial(highest_confidence, model, pictures, graph=traced(model, pictures))
    bounds: dict[Method, Tensor] = {method: bound(ball, method=method) for method in methods}
    least = torch.stack([*bounds.values()]).amin(dim=0)
    curve = [(radius, _auroc(known, bound(ball.resized(radius), method="interval"))) for radius in size.radii]
    return {
        "plain": _auroc(known, _logits(model, pictures).softmax(dim=1).amax(dim=1)),
        "attacked": _auroc(known, reached),
        **{TITLES[method]: _auroc(known, highest) for method, highest in bounds.items()},
        "broken": int((reached > least).sum()),
        "attacked pictures": len(pictures),
        "curve": curve,
    }


def towards(digits: Tensor) -> Start:
    """Start as near to a random digit as the ball allows, every second time; else at a uniform point.

    At its outliers, and at most points near them, GOOD's network has no slope: all its ReLUs are at 0. From there no
    gradient leads anywhere.
    """

    def begin(ball: Ball, centres: Tensor, noise: Noise, restart: int) -> Tensor:
        if restart % 2:
            return uniform(ball, centres, noise, restart)
        rows = (noise.uniform(1, stream=restart).squeeze(1) * len(digits)).long()
        return ball.projector(centres)(digits[rows])

    return begin


def _auroc(known: Tensor, ood: Tensor) -> float:
    return 100 * float(guaranteed_auroc(known, ood))


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(part) for part in inputs.split(512)]).double()
