"""CEDA and ACET: how confident ReLU networks are on noise, and far away from the training data."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import attacks
from caveat.attacks import Ball, losses
from caveat.rays import along, overconfident, reached
from caveat.records.findings import Findings, Scale
from caveat.scores.logits import msp
from caveat.studies.kit import common
from caveat.studies.kit import folder as folders
from caveat.studies.relu_overconfidence.figures import moons
from caveat.studies.relu_overconfidence.findings import Judged, conclude
from caveat.studies.relu_overconfidence.training import SIZES, Set, Size, objectives, set_of, trained

__all__ = ["run"]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train plain, CEDA and ACET networks, judge them near and far; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="relu-overconfidence", scale=scale, seed=seed, size=size)
    judged: list[Judged] = []
    for name in size.sets:
        inside = set_of(name, size, seed)
        for method, objective in objectives(size).items():
            say(f"{name}: training {method}")
            model, seconds = trained(inside, size, objective, seed, folder / name / method)
            say(f"{name}: judging {method}")
            judged.append(_judge(inside, size, method, model, seconds, seed))
    say("two moons")
    shots = moons(steps=60 if scale == "smoke" else 1500, seed=seed)
    return conclude(scale, seed, size, judged, shots)


def _judge(inside: Set, size: Size, method: str, model: nn.Module, seconds: float, seed: int) -> Judged:
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = inside.test
    logits = _logits(model, inputs)
    few = min(500, size.judged)
    sets = dict(inside.ood)
    sets["adversarial noise"] = _confident_noise(model, inside.ood["noise"][:few], size, generator)
    ball = Ball(math.inf, 0.3 if inside.name != "cifar10" else 0.1)
    attacked = attacks.pgd(model, inputs[:few], labels[:few], ball, generator=generator, steps=5 * size.steps)
    answers = _logits(model, attacked)
    confident = answers.softmax(dim=1).amax(dim=1)
    resisted = (answers.argmax(dim=1) == labels[:few]) & (confident > 1.01 / logits.shape[1])
    outside: dict[str, dict[str, float]] = {}
    for name, pictures in sets.items():
        outside[name] = _versus(logits, _logits(model, pictures))
    if bool((~resisted).any()):
        outside["adversarial samples"] = _versus(logits, answers[~resisted])
    noise = torch.rand((size.rays, *inside.train.shape), generator=generator)
    rays = along(model, noise[: min(size.rays, 300)], pieces=0, rows=False)
    grid = reached(model, noise)
    clipped = overconfident(model, noise)
    return Judged(
        set=inside.name,
        method=method,
        seconds=seconds,
        error=100 * float((logits.argmax(dim=1) != labels).double().mean()),
        confidence=float(logits.softmax(dim=1).amax(dim=1).mean()),
        outside=outside,
        alpha=_median(grid),
        first=_median(rays.first),
        stays=_median(rays.stays),
        ties=int(rays.tie.sum()),
        rays=len(rays.first),
        overconfident=100 * float(clipped.double().mean()),
        resisted=100 * float(resisted.double().mean()),
        curve=_along(model, noise[:200]),
    )


def _confident_noise(model: nn.Module, noise: Tensor, size: Size, generator: torch.Generator) -> Tensor:
    """Noise moved to where the network is most confident."""

    def confidence(points: Tensor) -> Tensor:
        logits = model(points)
        return losses.confidence(logits, logits.argmax(dim=1))

    ball = Ball(math.inf, 0.3)
    return attacks.ascend(confidence, noise, ball, generator=generator, steps=5 * size.steps, step=0.3 / 20).inputs


def _versus(inside: Tensor, ood: Tensor) -> dict[str, float]:
    found = common.detection(msp(inside), msp(ood))
    confidence = float(ood.softmax(dim=1).amax(dim=1).mean())
    return {"MMC": confidence, "AUROC": found["auroc"] / 100, "FPR95": found["fpr_in"] / 100}


def _along(model: nn.Module, noise: Tensor) -> list[tuple[float, float]]:
    """Mean confidence at alpha x, for alphas from 1 to 10^6."""
    alphas = [10 ** (step / 4) for step in range(25)]
    return [(alpha, float(_logits(model, alpha * noise).softmax(dim=1).amax(dim=1).mean())) for alpha in alphas]


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(part) for part in inputs.split(256)]).double()


def _median(alphas: Tensor) -> float:
    return float(alphas.double().sort().values[(len(alphas) - 1) // 2])
