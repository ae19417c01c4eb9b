"""TRADI on street scenes (CamVid): detecting pixels of classes that training never showed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import posteriors
from caveat.data import scenes as sets
from caveat.mixture import log_mean
from caveat.posteriors import Dropout, Ensemble, dropout, ensemble, perturbation
from caveat.records.findings import Figure, Findings, Scale, Shot
from caveat.studies.kit import folder as folders
from caveat.studies.kit.pixels import Answer, measure
from caveat.studies.tradi_camvid import figures
from caveat.studies.tradi_camvid.findings import ENSEMBLE, MC_DROPOUT, NOISE, ONE, OURS, SWAG, conclude
from caveat.studies.tradi_camvid.training import SIZES, Recipe, recipes
from caveat.training import checkpoint, members

__all__ = ["on_one_set", "run"]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, track, sample and compare; see `studies`."""
    folders.claim(folder, study="tradi-camvid", scale=scale, seed=seed, size=SIZES[scale])
    found: dict[str, dict[str, dict[str, float]]] = {}
    seconds: dict[str, float] = {}
    shots: list[Shot] = []
    charts: list[Figure] = []
    chosen, left_out = recipes(folder, scale)
    for recipe in chosen:
        found[recipe.name], spent, seen = on_one_set(recipe, folder / recipe.name.lower(), seed, say)
        seconds |= {f"{recipe.name}: {name}": value for name, value in spent.items()}
        shots += seen
        charts.append(figures.trade_off(recipe.name, found[recipe.name]))
    shape = chosen[0].test().size
    return conclude(scale, seed, found, left_out, charts, shots, seconds=seconds, shape=str(shape))


def on_one_set(
    recipe: Recipe, place: Path, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, dict[str, float]], dict[str, float], list[Shot]]:
    """Figures of every method on one set, training times, and the scenes with most OOD pixels."""
    test = recipe.test()
    model, methods, spent = _methods(recipe, place, seed, say)
    tracking = spent["tracked network"] / spent["one network"]
    costs = {ENSEMBLE: float(recipe.size.members), OURS: tracking, SWAG: tracking}
    found: dict[str, dict[str, float]] = {}
    for name, posterior in methods.items():
        say(f"{recipe.name}: {name}")
        found[name] = measure(_answer(model, posterior, recipe), test, per_image=recipe.per_image)
        found[name]["training time"] = costs.get(name, 1.0)
    say(f"{recipe.name}: scenes")
    shown = {name: methods[name] for name in (ONE, ENSEMBLE, OURS)}
    return found, spent, figures.shots(recipe.name, model, shown, test)


def _methods(
    recipe: Recipe, place: Path, seed: int, say: Callable[[str], None]
) -> tuple[nn.Module, dict[str, Ensemble | Dropout | None], dict[str, float]]:
    """Train the tracked network and the members, fit or sample every posterior; with the seconds of training."""
    train = recipe.train()
    classes = len(train.classes)
    say(f"{recipe.name}: reading {len(train)} scenes")
    batches = sets.shuffled_scenes(train, batch=recipe.size.batch, generator=torch.Generator())
    say(f"{recipe.name}: one network, tracked by TRADI and SWAG")
    model, tracked, averaged = recipe.trained(batches, classes, seed, place / "base.safetensors", track=True)
    say(f"{recipe.name}: {recipe.size.members - 1} more networks for the deep ensemble")

    def member(number: int, checkpoint: Path) -> nn.Module:
        return recipe.trained(batches, classes, number, checkpoint)[0]

    # trackers only watch: the tracked network is a member like the others
    numbers = [1000 * (seed + 1) + k for k in range(1, recipe.size.members)]
    others = members(member, seeds=numbers, folder=place / "members")
    say(f"{recipe.name}: posterior samples")
    draw = torch.Generator().manual_seed(seed)
    renewing = list(replace(batches, generator=torch.Generator().manual_seed(seed)))[:40]

    def sampled(posterior: posteriors.Posterior) -> Ensemble:
        return posteriors.sample(posterior, model, draws=recipe.size.draws, generator=draw, batches=renewing)

    drawn = sampled(tracked.posterior())
    methods: dict[str, Ensemble | Dropout | None] = {
        ONE: None,
        NOISE: sampled(perturbation.fit(model, scale=0.1)),
        MC_DROPOUT: dropout.of(model),
        ENSEMBLE: ensemble.stack([ensemble.state(model), *(others.member(k) for k in range(len(others)))]),
        OURS: drawn,
        SWAG: sampled(averaged.posterior()),
    }
    plain = [checkpoint.seconds(place / "members" / f"member-{number}.checkpoint.safetensors") for number in numbers]
    spent = {"tracked network": checkpoint.seconds(place / "base.safetensors"), "one network": sum(plain) / len(plain)}
    return model, methods, spent


def _answer(model: nn.Module, posterior: Ensemble | Dropout | None, recipe: Recipe) -> Answer:
    anchor = next(model.parameters())

    def answer(inputs: Tensor) -> Tensor:
        inputs = inputs.to(anchor.device)
        with torch.inference_mode():
            if posterior is None:
                return model(inputs)
            count = recipe.size.draws if isinstance(posterior, Dropout) else None
            generator = torch.Generator().manual_seed(0)
            return log_mean(posteriors.predict(posterior, model, inputs, generator=generator, draws=count))

    return answer
