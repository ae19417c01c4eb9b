"""TRADI on CIFAR-10: likelihood and accuracy beside ensembles, MC dropout, SWAG and Laplace."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from caveat import data, posteriors
from caveat.posteriors import Ensemble, dropout, perturbation
from caveat.records.findings import Findings, Scale
from caveat.studies.kit import folder as folders
from caveat.studies.kit import networks
from caveat.studies.tradi_cifar.findings import PLAIN, RENEWED, conclude
from caveat.studies.tradi_cifar.training import SIZES, Sets, Size, sets_of, trained
from caveat.training import checkpoint, members

__all__ = ["run"]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, track, sample and compare; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="tradi-cifar", scale=scale, seed=seed, size=size)
    sets = sets_of(scale, size)
    seeds = [seed + number for number in range(size.seeds)]
    found: list[dict[str, dict[str, float]]] = []
    seconds: dict[str, float] = {}
    for one in seeds:
        place = folder / f"seed-{one}"
        methods = _methods(sets, size, one, place, say)
        found.append({name: networks.measure(method, sets.test, sets.ood) for name, method in methods.items()})
        seconds[f"seed {one}: tracked network"] = checkpoint.seconds(place / "base.safetensors")
    return conclude(scale, seeds, size, found, seconds)


def _methods(
    sets: Sets, size: Size, seed: int, place: Path, say: Callable[[str], None]
) -> dict[str, networks.Method]:  # fmt: skip
    """Train the tracked network and the members, and fit or sample every posterior."""
    say(f"seed {seed}: one network, tracked by TRADI and SWAG")
    model, tracked, averaged = trained(sets.train, size, seed, place / "base.safetensors", track=True)
    say(f"seed {seed}: {size.members - 1} more networks for the deep ensemble")

    def member(number: int, checkpoint: Path) -> nn.Module:
        return trained(sets.train, size, number, checkpoint, track=False)[0]

    # trackers only watch: the tracked network is a member like the others
    others = members(member, seeds=[1000 * (seed + 1) + k for k in range(1, size.members)], folder=place / "members")
    ensemble = posteriors.ensemble.stack(
        [posteriors.ensemble.state(model), *(others.member(k) for k in range(len(others)))]
    )
    say(f"seed {seed}: posterior samples")
    draw = torch.Generator().manual_seed(seed)
    renewing = list(data.subset(sets.train, torch.arange(min(2000, len(sets.train)))))

    def sampled(posterior: posteriors.Posterior) -> Ensemble:
        return posteriors.sample(posterior, model, draws=size.draws, generator=draw, batches=renewing)

    def mixed(posterior: Ensemble | posteriors.Dropout) -> networks.Method:
        return networks.mixture(posterior, model, draws=size.draws)

    layer = networks.last_layer(model, sets.train)
    masks = dropout.of(model, after=("stage1", "stage2", "stage3"), rate=0.1)
    still = sampled(perturbation.fit(model, scale=0.0)).first(1)
    return {
        PLAIN: model,
        RENEWED: mixed(still),
        "Gaussian perturbation": mixed(sampled(networks.perturbed(model, sets.held, renewing, draw))),
        "MC dropout": mixed(masks),
        "Deep ensemble": mixed(ensemble),
        "TRADI": mixed(sampled(tracked.posterior())),
        "SWAG": mixed(sampled(averaged.posterior())),
        "Laplace, last layer": mixed(posteriors.sample(layer, model, draws=size.draws, generator=draw)),
    }
