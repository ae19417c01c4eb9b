"""Neuron coverage: does it say anything of a set's error or OOD inputs that size and confidence do not?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import data, models, neurons
from caveat.evaluation import in_eval_mode
from caveat.neurons import Criteria
from caveat.objectives import OBJECTIVES, Objective, cross_entropy
from caveat.records.findings import Findings, Scale
from caveat.studies.kit import folder as folders
from caveat.studies.neuron_coverage.findings import Measured, conclude
from caveat.studies.neuron_coverage.training import Drawn, drawn, pool_of
from caveat.training import recipe

__all__ = ["run"]

CRITERIA = Criteria(sections=100, top=3)


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    name: str
    side: int
    train: int | None
    epochs: int
    sets: int
    sizes: tuple[int, ...]
    networks: tuple[str, ...]


ALL = ("lenet", "small_cnn", "mlp", "smoothed", "attacked")
"""The networks, as in `GOALS`."""
SIZES: dict[Scale, Size] = {
    "smoke": Size("digits", 8, 300, 2, 8, (20, 60), ("small_cnn", "mlp")),
    "small": Size("mnist", 28, 10_000, 3, 60, (50, 200, 800), ALL),
    "full": Size("mnist", 28, None, 5, 200, (50, 200, 800, 3200), ALL),
}  # fmt: skip

GOALS: dict[str, tuple[str, Objective]] = {
    "lenet": ("lenet", cross_entropy),
    "small_cnn": ("small_cnn", cross_entropy),
    "mlp": ("mlp", cross_entropy),
    "smoothed": ("lenet", OBJECTIVES["label_smoothing"]),
    "attacked": ("small_cnn", OBJECTIVES["fast_adversarial"]),
}
"""Name of a network of the study: how it is built and what it is trained by."""


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train the networks, draw the sets, count what each brings each network into; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="neuron-coverage", scale=scale, seed=seed, size=size)
    train = data.load(f"{size.name}:train" + ("" if size.train is None else f"+first={size.train}"))
    pool = pool_of(size.name, limit=300 if scale == "smoke" else None)
    sets = [drawn(pool, size.sizes, number, seed) for number in range(size.sets)]
    found: dict[str, list[Measured]] = {}
    for number, name in enumerate(size.networks):
        say(f"{name}: training")
        model = _trained(name, train, size, seed + number, folder)
        say(f"{name}: {size.sets} sets")
        found[name] = folders.stored(folder / f"{name}.json", partial(_measured, model, train, sets))
    return conclude(scale, seed, size.sets, size.sizes, found)


def _trained(name: str, train: data.Source, size: Size, seed: int, folder: Path) -> nn.Module:
    build, goal = GOALS[name]
    generator = torch.Generator().manual_seed(seed)
    model = models.MODELS[build](classes=10, channels=1, size=size.side, generator=generator)
    recipe.train(
        model, train, epochs=size.epochs, rate=3e-3, batch=128, generator=generator, goal=goal,
        checkpoint=folder / f"{name}.safetensors",
    )  # fmt: skip
    return model.eval()


def _measured(model: nn.Module, train: data.Source, sets: list[Drawn]) -> list[Measured]:
    known = neurons.ranges(model, train)
    return [_one(model, known, one) for one in sets]


def _one(model: nn.Module, known: neurons.Ranges, one: Drawn) -> Measured:
    """A set's figures: what is to be told, what is known without coverage, and coverage."""
    logits = _logits(model, one.inputs)
    inside = len(one.labels)
    wrong = logits[:inside].argmax(dim=1) != one.labels
    shares = neurons.coverage(model, one.inputs, known, criteria=CRITERIA).of()
    levels = {f"NC {level:g}": value for level, value in zip(CRITERIA.thresholds, shares.nc, strict=True)}
    return {
        "error": float(wrong.double().mean()), "OOD share": one.ood_share,
        "size": float(len(one.inputs)), "confidence": float(logits.softmax(dim=1).amax(dim=1).mean()),
        **levels, "KMNC": shares.kmnc, "NBC": shares.nbc, "SNAC": shares.snac, "TKNC": shares.tknc,
    }  # fmt: skip


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with in_eval_mode(model), torch.no_grad():
        return torch.cat([model(part) for part in inputs.split(512)]).double()
