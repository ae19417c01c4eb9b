"""CEDA and ACET: how confident ReLU networks are on noise, and far away from the training data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import attacks, data, models
from caveat.attacks import Ball, losses
from caveat.data import Source
from caveat.errors import DataError
from caveat.objectives import Acet, Ceda, Objective, cross_entropy
from caveat.rays import along, overconfident, reached
from caveat.records.findings import Findings, Scale
from caveat.scores.logits import msp
from caveat.studies.kit import common
from caveat.studies.relu_overconfidence.figures import moons
from caveat.studies.relu_overconfidence.findings import Judged, Size, told
from caveat.training import fit

__all__ = ["run"]

SIZES: dict[Scale, Size] = {
    "smoke": Size(sets=("digits",), train=400, epochs=2, warm=1, steps=2, width=4, hidden=16, rays=20, judged=60),
    "small": Size(sets=("mnist",), train=20_000, epochs=14, warm=0, steps=10, width=16, hidden=128, rays=1000,
                  judged=2000),
    "full": Size(sets=("mnist", "fashion-mnist", "cifar10"), train=None, epochs=100, warm=0, steps=40, width=32,
                 hidden=1024, rays=10_000, judged=10_000),
}  # fmt: skip
OOD = {
    "digits": {"blobs": "blobs", "noise": "noise:acet"},
    "mnist": {
        "Fashion-MNIST": "fashion-mnist:test", "notMNIST letters": "notmnist_small", "KMNIST": "kmnist:test",
        "grey CIFAR-10": "cifar10:test+grey+28x28", "noise": "noise:acet",
    },
    "fashion-mnist": {
        "MNIST": "mnist:test", "notMNIST letters": "notmnist_small", "grey CIFAR-10": "cifar10:test+grey+28x28",
        "noise": "noise:acet",
    },
    "cifar10": {"CIFAR-100": "cifar100:test", "GTSRB": "gtsrb:test", "textures": "dtd10:test+32x32",
                "noise": "noise:acet"},
}  # fmt: skip


@dataclass(frozen=True)
class _Set:
    name: str
    train: Source
    test: tuple[Tensor, Tensor]
    ood: dict[str, Tensor]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train plain, CEDA and ACET networks, judge them near and far; see `studies`."""
    size = SIZES[scale]
    judged: list[Judged] = []
    for name in size.sets:
        known = _set(name, size, seed)
        for method, objective in _objectives(size).items():
            say(f"{name}: training {method}")
            model, seconds = _trained(known, size, objective, seed, folder / name / method)
            say(f"{name}: judging {method}")
            judged.append(_judge(known, size, method, model, seconds, seed))
    say("two moons")
    shots = moons(steps=60 if scale == "smoke" else 1500, seed=seed)
    return told(scale, seed, size, judged, shots)


def _set(name: str, size: Size, seed: int) -> _Set:
    whole = data.in_memory(data.load(f"{name}:train"))
    test = data.load(f"{name}:test")
    test = data.subset(test, torch.arange(min(size.judged, len(test))))
    count = len(whole) if size.train is None else min(size.train, len(whole))
    ood: dict[str, Tensor] = {}
    for title, spec in OOD[name].items():
        try:
            found = data.load(spec, like=test, seed=seed)
        except DataError:  # not every set is everywhere
            continue
        ood[title] = common.pictures(data.subset(found, torch.arange(min(size.judged, len(found)))))[0]
    return _Set(name, data.subset(whole, torch.arange(count)), common.pictures(test), ood)


def _objectives(size: Size) -> dict[str, Objective]:
    return {"plain": cross_entropy, "CEDA": Ceda(), "ACET": Acet(steps=size.steps)}


def _network(known: _Set, size: Size, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    channels, side = known.train.shape[:2]
    if known.name == "cifar10":
        return models.resnet20(generator=generator)
    return models.lenet(channels=channels, size=side, width=size.width, hidden=size.hidden, generator=generator)


def _trained(known: _Set, size: Size, objective: Objective, seed: int, place: Path) -> tuple[nn.Module, float]:
    """The published recipe, shortened. With `warm`, ACET's weight is small at first; but a network that is sure of all
    noise by then stays so, since its confidence has no slope left."""
    model = _network(known, size, seed)
    coloured = known.name == "cifar10"
    augment = data.augment.crop_and_flip if coloured else data.augment.crop
    batches = data.shuffled(
        known.train, batch=128, generator=torch.Generator().manual_seed(seed + 1), augment=augment, drop_last=True
    )
    if coloured:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    total = size.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(total * part) for part in (0.5, 0.75, 0.9)], 0.1)
    generator = torch.Generator().manual_seed(seed + 2)
    phases: list[tuple[str, Objective, int]] = [("main", objective, size.epochs)]
    if isinstance(objective, Acet) and size.warm:
        phases = [
            ("warm", Acet(weight=0.001, steps=size.steps), size.warm), ("main", objective, size.epochs - size.warm),
        ]  # fmt: skip
    seconds = 0.0
    for name, goal, epochs in phases:
        history = fit(
            model, batches, goal, optimizer=optimizer, schedule=schedule, epochs=epochs, generator=generator,
            checkpoint=place / f"{name}.safetensors", checkpoint_every=100,
        )  # fmt: skip
        seconds += sum(history.seconds)
    return model.eval(), seconds


def _judge(known: _Set, size: Size, method: str, model: nn.Module, seconds: float, seed: int) -> Judged:
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = known.test
    logits = _logits(model, inputs)
    few = min(500, size.judged)
    sets = dict(known.ood)
    sets["adversarial noise"] = _sure_noise(model, known.ood["noise"][:few], size, generator)
    attacked = attacks.pgd(
        model, inputs[:few], labels[:few], Ball(math.inf, 0.3 if known.name != "cifar10" else 0.1), generator=generator,
        steps=5 * size.steps,
    )  # fmt: skip
    answers = _logits(model, attacked)
    sure = answers.softmax(dim=1).amax(dim=1)
    resisted = (answers.argmax(dim=1) == labels[:few]) & (sure > 1.01 / logits.shape[1])
    outside: dict[str, dict[str, float]] = {}
    for name, pictures in sets.items():
        outside[name] = _versus(logits, _logits(model, pictures))
    if bool((~resisted).any()):
        outside["adversarial samples"] = _versus(logits, answers[~resisted])
    noise = torch.rand((size.rays, *known.train.shape), generator=generator)
    rays = along(model, noise[: min(size.rays, 300)], pieces=0, rows=False)
    grid = reached(model, noise)
    clipped = overconfident(model, noise)
    return Judged(
        set=known.name,
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


def _sure_noise(model: nn.Module, noise: Tensor, size: Size, generator: torch.Generator) -> Tensor:
    """Noise moved to where the network is most sure."""

    def sure(points: Tensor) -> Tensor:
        logits = model(points)
        return losses.confidence(logits, logits.argmax(dim=1))

    ball = Ball(math.inf, 0.3)
    return attacks.ascend(sure, noise, ball, generator=generator, steps=5 * size.steps, step=0.3 / 20).inputs


def _versus(known: Tensor, ood: Tensor) -> dict[str, float]:
    found = common.detection(msp(known), msp(ood))
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
