"""TRADI on MNIST against notMNIST, beside a deep ensemble, MC dropout, SWAG and weight noise."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import data, posteriors
from caveat.data import Source
from caveat.models.tradi_mlp import tradi_mlp
from caveat.objectives import cross_entropy
from caveat.posteriors import Ensemble, dropout, swag, tradi
from caveat.records.findings import Findings, Scale
from caveat.studies.kit import common, networks
from caveat.studies.tradi_mnist.findings import Size, told
from caveat.training import fit, members

__all__ = ["run"]

SIZES: dict[Scale, Size] = {
    "smoke": Size(seeds=1, epochs=2, step=1, members=2, draws=3, train=600, longer=3),
    "small": Size(seeds=1, epochs=10, step=5, members=5, draws=20, train=20_000, longer=15),
    "full": Size(seeds=3, epochs=20, step=10, members=15, draws=20, train=None, longer=30),
}


@dataclass(frozen=True)
class _Sets:
    train: Source
    tune: Source
    test: tuple[Tensor, Tensor]
    ood: Tensor


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, track, sample and compare; see `studies`."""
    size = SIZES[scale]
    sets = _sets(scale, size)
    seeds = [seed + number for number in range(size.seeds)]
    main: list[dict[str, dict[str, float]]] = []
    variants: list[dict[str, dict[str, float]]] = []
    late: list[dict[str, dict[str, float]]] = []
    curves: list[dict[str, float | str | None]] = []
    seconds: dict[str, float] = {}
    for one in seeds:
        place = folder / f"seed-{one}"
        found, others, curve, spent = _one_seed(sets, size, one, place, say)
        main.append(found)
        variants.append(others)
        curves += curve
        seconds |= {f"seed {one}: {name}": value for name, value in spent.items()}
        late.append(_later(sets, size, one, place, say))
    return told(scale, seeds, size, main, variants, late, curves, seconds)


def _sets(scale: Scale, size: Size) -> _Sets:
    if scale == "smoke":
        whole, test = data.load("digits:train"), data.load("digits:test")
        ood = data.load("blobs", like=test)
    else:
        whole, test, ood = data.load("mnist:train"), data.load("mnist:test"), data.load("notmnist_small")
    whole = data.in_memory(whole)
    held = min(5000, len(whole) // 5)
    count = len(whole) - held if size.train is None else min(size.train, len(whole) - held)
    return _Sets(
        train=data.subset(whole, torch.arange(count)),
        tune=data.subset(whole, torch.arange(len(whole) - held, len(whole))),
        test=common.pictures(test),
        ood=common.pictures(ood)[0],
    )


def _network(sets: _Sets, seed: int) -> nn.Module:
    return tradi_mlp(size=sets.train.shape[1], generator=torch.Generator().manual_seed(seed))


def _trained(
    sets: _Sets, size: Size, seed: int, checkpoint: Path, *, tracked: bool, epochs: int
) -> tuple[nn.Module, list[tradi.Tracker | swag.Tracker]]:
    """The recipe of the authors' code; the same weights with and without trackers."""
    model = _network(sets, seed)
    batches = data.shuffled(sets.train, batch=128, generator=torch.Generator().manual_seed(seed + 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, size.step * len(batches), 0.1)
    steps = len(batches)
    trackers: list[tradi.Tracker | swag.Tracker] = []
    if tracked:
        last = (3 * size.step // 2) * steps
        trackers = [
            tradi.start(model, optimizer, burn_in=steps),
            swag.start(model, burn_in=last, every=max(1, steps // 4)),
        ]
    fit(
        model, batches, cross_entropy, optimizer=optimizer, schedule=schedule, epochs=epochs, trackers=trackers,
        generator=torch.Generator().manual_seed(seed + 2), checkpoint=checkpoint,
    )  # fmt: skip
    return model.eval(), trackers


def _one_seed(
    sets: _Sets, size: Size, seed: int, place: Path, say: Callable[[str], None]
) -> tuple[
    dict[str, dict[str, float]],
    dict[str, dict[str, float]],
    list[dict[str, float | str | None]],
    dict[str, float],
]:
    say(f"seed {seed}: one network, tracked by TRADI and SWAG")
    model, trackers = _trained(sets, size, seed, place / "base.safetensors", tracked=True, epochs=size.epochs)
    say(f"seed {seed}: {size.members} networks for the deep ensemble")

    def member(number: int, checkpoint: Path) -> nn.Module:
        return _trained(sets, size, number, checkpoint, tracked=False, epochs=size.epochs)[0]

    # the first member is the very network that was tracked
    numbers = [seed, *(1000 * (seed + 1) + k for k in range(1, size.members))]
    ensemble = members(member, seeds=numbers, folder=place / "members")
    say(f"seed {seed}: draws")
    draw = torch.Generator().manual_seed(seed)
    renewing = list(data.subset(sets.train, torch.arange(min(20_000, len(sets.train)))))
    tracked, averaged = trackers
    assert isinstance(tracked, tradi.Tracker)
    assert isinstance(averaged, swag.Tracker)

    def judged(method: networks.Method) -> dict[str, float]:
        return networks.measure(method, sets.test, sets.ood)

    def sampled(posterior: posteriors.Posterior) -> Ensemble:
        return posteriors.sample(posterior, model, draws=size.draws, generator=draw, batches=renewing)

    noisy = sampled(networks.perturbed(model, sets.tune, renewing, draw))
    shared = sampled(tracked.posterior())
    layer = networks.last_layer(model, sets.train)
    methods: dict[str, networks.Method] = {
        "MCP (one network)": model,
        "Gaussian perturbation": networks.mixture(noisy, model, draws=size.draws),
        "MC dropout": networks.mixture(dropout.of(model), model, draws=size.draws),
        "Deep ensemble": networks.mixture(ensemble, model, draws=size.draws),
        "TRADI": networks.mixture(shared, model, draws=size.draws),
        "SWAG": networks.mixture(sampled(averaged.posterior()), model, draws=size.draws),
        "Laplace, last layer": networks.mixture(
            posteriors.sample(layer, model, draws=size.draws, generator=draw), model, draws=size.draws
        ),
    }  # fmt: skip
    spent = {"tracked network": networks.seconds(place / "base.safetensors")}
    spent["plain networks"] = sum(
        networks.seconds(place / "members" / f"member-{number}.checkpoint.safetensors") for number in numbers
    )
    found = {name: judged(method) for name, method in methods.items()}
    plain = spent["plain networks"] / size.members
    for name, figures in found.items():
        figures["training, x plain"] = {
            "Deep ensemble": float(size.members), "TRADI": spent["tracked network"] / plain,
            "SWAG": spent["tracked network"] / plain,
        }.get(name, 1.0)  # fmt: skip
    say(f"seed {seed}: variants of TRADI")
    variants = {
        "one phase per feature, probabilities averaged (TRADI)": found["TRADI"],
        "one phase per feature, logits averaged": judged(
            networks.mixture(shared, model, draws=size.draws, logits=True)
        ),
        "a phase per weight (the public code), probabilities": judged(
            networks.mixture(sampled(tracked.posterior(covariance="per_weight")), model, draws=size.draws)
        ),
        "a phase per weight, logits (the public code)": judged(
            networks.mixture(sampled(tracked.posterior(covariance="per_weight")), model, draws=size.draws, logits=True)
        ),
        "independent weights, probabilities": judged(
            networks.mixture(sampled(tracked.posterior(covariance="diagonal")), model, draws=size.draws)
        ),
    }
    curve: list[dict[str, float | str | None]] = []
    if seed == 0 or size.seeds == 1:
        for name, drawn in (("TRADI", shared), ("Deep ensemble", ensemble)):
            for count in [k for k in (1, 2, 3, 5, 8, 10, 15, 20) if k <= len(drawn)]:
                auc = judged(networks.mixture(drawn.first(count), model, draws=size.draws))["AUC"]
                curve.append({"draws": float(count), "AUC": auc, "method": name})
    return found, variants, curve, spent


def _later(sets: _Sets, size: Size, seed: int, place: Path, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """The same network after the last stage of the authors' schedule."""
    say(f"seed {seed}: {size.longer} epochs")
    longer = place / "longer.safetensors"
    if not longer.exists():
        shutil.copyfile(place / "base.safetensors", longer)
    model, trackers = _trained(sets, size, seed, longer, tracked=True, epochs=size.longer)
    tracked = trackers[0]
    assert isinstance(tracked, tradi.Tracker)
    renewing = list(data.subset(sets.train, torch.arange(min(20_000, len(sets.train)))))
    drawn = posteriors.sample(
        tracked.posterior(), model, draws=size.draws, generator=torch.Generator().manual_seed(seed), batches=renewing
    )

    def judged(method: networks.Method) -> dict[str, float]:
        return networks.measure(method, sets.test, sets.ood)

    return {"MCP (one network)": judged(model), "TRADI": judged(networks.mixture(drawn, model, draws=size.draws))}
