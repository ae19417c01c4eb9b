"""TRADI on MNIST against notMNIST, beside a deep ensemble, MC dropout, SWAG and weight noise."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caveat import posteriors
from caveat.posteriors import Ensemble, dropout, tradi
from caveat.posteriors.ensemble import stack
from caveat.records.findings import Findings, Scale
from caveat.studies.kit import common, networks
from caveat.studies.kit import folder as folders
from caveat.studies.tradi_mnist.findings import (
    ALONE,
    LESS,
    PER_WEIGHT,
    PLAIN,
    STALE,
    TRADI,
    Figures,
    Found,
    conclude,
    held_row,
    scaled,
)
from caveat.studies.tradi_mnist.training import DECAYS, SCALES, SIZES, Sets, Size, sets_of, trained
from caveat.training import checkpoint, members

__all__ = ["run"]

COUNTS = (1, 2, 3, 5, 8, 10, 15, 20)
"""Numbers of posterior samples, or members, at which the AUC is computed."""


@dataclass(frozen=True)
class _Networks:
    """What the training of one seed gives."""

    model: nn.Module
    tracked: Ensemble
    """Samples from TRADI's posterior."""
    tradi: tradi.Tracker
    ensemble: Ensemble
    methods: dict[str, networks.Method]
    draw: torch.Generator
    seconds: dict[str, float] = field(default_factory=dict[str, float])


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, track, sample and compare; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="tradi-mnist", scale=scale, seed=seed, size=size)
    sets = sets_of(scale, size)
    seeds = [seed + number for number in range(size.seeds)]
    found = Found()
    for one in seeds:
        place = folder / f"seed-{one}"
        made = _networks(sets, size, one, place, say)
        main = {name: networks.measure(method, sets.test, sets.ood) for name, method in made.methods.items()}
        say(f"seed {one}: less weight decay")
        less: dict[str, Any] = folders.stored(place / "decay.json", partial(_decayed, sets, size, one, place))
        found.held.append(less["held"])
        main |= less["test"]
        _add_costs(main, made.seconds, size)
        found.main.append(main)
        say(f"seed {one}: variants of TRADI")
        found.variants.append(_variants(main["TRADI"], made, sets, size))
        if one == seed:
            found.curve.extend(_curve(made, sets, size))
        found.seconds.update({f"seed {one}: {name}": value for name, value in made.seconds.items()})
        say(f"seed {one}: {size.longer} epochs")
        found.late.append(_later(sets, size, one, place))
    return conclude(scale, seeds, size, found)


def _networks(sets: Sets, size: Size, seed: int, place: Path, say: Callable[[str], None]) -> _Networks:
    """Train the tracked network and the members, and fit or sample every posterior."""
    say(f"seed {seed}: one network, tracked by TRADI and SWAG")
    model, tracked, averaged = trained(sets, size, seed, place / "base.safetensors", epochs=size.epochs, track=True)
    say(f"seed {seed}: {size.members} networks for the deep ensemble")

    def member(number: int, checkpoint: Path) -> nn.Module:
        return trained(sets, size, number, checkpoint, epochs=size.epochs, track=False)[0]

    # the first member has the weights of the tracked network, trained without trackers: its time is the plain one
    numbers = [seed, *(1000 * (seed + 1) + k for k in range(1, size.members))]
    ensemble = members(member, seeds=numbers, folder=place / "members")
    say(f"seed {seed}: posterior samples")
    draw = torch.Generator().manual_seed(seed)
    renewing = sets.renewing()

    def sampled(posterior: posteriors.Posterior) -> Ensemble:
        return posteriors.sample(posterior, model, draws=size.draws, generator=draw, batches=renewing)

    def mixed(posterior: Ensemble | posteriors.Dropout) -> networks.Method:
        return networks.mixture(posterior, model, draws=size.draws)

    noisy = sampled(networks.perturbed(model, sets.held, renewing, draw))
    shared = sampled(tracked.posterior())
    layer = networks.last_layer(model, sets.train)
    methods: dict[str, networks.Method] = {
        "MCP (one network)": model,
        "Gaussian perturbation": mixed(noisy),
        "MC dropout": mixed(dropout.of(model)),
        "Deep ensemble": mixed(ensemble),
        "TRADI": mixed(shared),
        "SWAG": mixed(sampled(averaged.posterior())),
        "Laplace, last layer": mixed(posteriors.sample(layer, model, draws=size.draws, generator=draw)),
    }
    spent = [checkpoint.seconds(place / "members" / f"member-{number}.checkpoint.safetensors") for number in numbers]
    seconds = {"tracked network": checkpoint.seconds(place / "base.safetensors"), "plain networks": sum(spent)}
    return _Networks(model, shared, tracked, ensemble, methods, draw, seconds)


def _add_costs(main: Figures, seconds: dict[str, float], size: Size) -> None:
    """How long each method trains, in trainings of one network; sampling is not counted."""
    tracking = seconds["tracked network"] * size.members / seconds["plain networks"]
    costs = {"Deep ensemble": float(size.members), TRADI: tracking, "SWAG": tracking, TRADI + LESS: tracking}
    for name, figures in main.items():
        figures["training time"] = costs.get(name, 1.0)


def _variants(own: dict[str, float], made: _Networks, sets: Sets, size: Size) -> Figures:
    """TRADI's samples drawn and averaged in other ways."""

    def judged(drawn: Ensemble, *, logits: bool = False) -> dict[str, float]:
        return networks.measure(
            networks.mixture(drawn, made.model, draws=size.draws, logits=logits), sets.test, sets.ood
        )

    def sampled(posterior: posteriors.Posterior) -> Ensemble:
        return posteriors.sample(
            posterior, made.model, draws=size.draws, generator=made.draw, batches=sets.renewing()
        )  # fmt: skip

    return {
        "one phase per feature, mean of probabilities (TRADI)": own,
        "one phase per feature, mean of logits": judged(made.tracked, logits=True),
        PER_WEIGHT: judged(sampled(made.tradi.posterior(covariance="per_weight"))),
        "one phase per weight, mean of logits (public code)": judged(
            sampled(made.tradi.posterior(covariance="per_weight")), logits=True
        ),
        "independent weights, mean of probabilities": judged(sampled(made.tradi.posterior(covariance="diagonal"))),
    }


def _curve(made: _Networks, sets: Sets, size: Size) -> list[dict[str, float | str | None]]:
    """AUC by number of posterior samples or members."""
    curve: list[dict[str, float | str | None]] = []
    for name, drawn in (("TRADI", made.tracked), ("Deep ensemble", made.ensemble)):
        for count in [k for k in COUNTS if k <= len(drawn)]:
            method = networks.mixture(drawn.first(count), made.model, draws=size.draws)
            auc = networks.measure(method, sets.test, sets.ood)["AUC"]
            curve.append({"samples or members": float(count), "AUC": auc, "method": name})
    return curve


def _later(sets: Sets, size: Size, seed: int, place: Path) -> Figures:
    """The same network after the last stage of the authors' schedule."""
    longer = place / "longer.safetensors"
    if not longer.exists():
        shutil.copyfile(place / "base.safetensors", longer)
    model, tracked, _ = trained(sets, size, seed, longer, epochs=size.longer, track=True)
    drawn = posteriors.sample(
        tracked.posterior(), model, draws=size.draws, generator=torch.Generator().manual_seed(seed),
        batches=sets.renewing(),
    )  # fmt: skip
    methods = {"MCP (one network)": model, "TRADI": networks.mixture(drawn, model, draws=size.draws)}
    return {name: networks.measure(method, sets.test, sets.ood) for name, method in methods.items()}


def _decayed(sets: Sets, size: Size, seed: int, place: Path) -> dict[str, Figures]:
    """What NLL and ECE depend on, by validation digits; and test figures with less weight decay.

    The samples' scale there is that of the lowest NLL on validation digits.
    """
    held: Figures = {}
    test: Figures = {}
    validation = common.pictures(sets.held)
    for decay in DECAYS:
        for epochs in (size.step, size.epochs):
            model, tracked, _ = trained(
                sets, size, seed, place / f"decay-{decay:g}.safetensors", epochs=epochs, track=True, decay=decay
            )
            named = partial(held_row, decay, epochs)
            held[named(ALONE)] = networks.measure(model, validation, sets.ood)
            drawn = {scale: _scaled(tracked.posterior(), model, sets, size, seed, scale=scale) for scale in SCALES}
            for scale, method in drawn.items():
                held[named(scaled(scale))] = networks.measure(method, validation, sets.ood)
            stale = _scaled(tracked.posterior(), model, sets, size, seed, scale=1.0, renew=False)
            held[named(STALE)] = networks.measure(stale, validation, sets.ood)
            if (decay, epochs) == (DECAYS[-1], size.epochs):
                best = min(SCALES, key=lambda scale, named=named: held[named(scaled(scale))]["NLL"])
                test[PLAIN + LESS] = networks.measure(model, sets.test, sets.ood)
                test[TRADI + LESS] = networks.measure(drawn[best], sets.test, sets.ood)
    return {"held": held, "test": test}


def _scaled(  # one choice each
    posterior: tradi.Tradi, model: nn.Module, sets: Sets, size: Size, seed: int, *, scale: float, renew: bool = True
) -> networks.Method:
    """TRADI's samples with its standard deviations times a scale."""
    narrow = replace(posterior, variance={name: value * scale**2 for name, value in posterior.variance.items()})
    generator = torch.Generator().manual_seed(seed)
    if renew:
        drawn = posteriors.sample(narrow, model, draws=size.draws, generator=generator, batches=sets.renewing())
    else:  # `sample` refuses that, and here is why
        drawn = stack([narrow.draw(generator) for _ in range(size.draws)])
    return networks.mixture(drawn, model, draws=size.draws)
