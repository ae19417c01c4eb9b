"""Four public ResNets of CIFAR-10, alone and as an ensemble of architectures; scores beside OpenOOD's table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caveat import data, heads
from caveat.metrics import calibration, proper
from caveat.mixture import log_mean
from caveat.observations import Observations, load, observe
from caveat.records.findings import Findings, Scale
from caveat.scores.draws import mutual_information, predictive_entropy
from caveat.scores.logits import energy, msp
from caveat.scoring import catalog
from caveat.scoring.kinds import Material
from caveat.studies.cifar10_resnets.findings import ENSEMBLE, conclude
from caveat.studies.cifar10_resnets.training import FILES, trained
from caveat.studies.kit import common, networks
from caveat.studies.kit import folder as folders

__all__ = ["run"]

TRAIN, TEST, CODED = "train", "test", "test, JPEG"


@dataclass(frozen=True)
class Size:
    """How large the experiment is: pictures of each set, None for all."""

    train: int | None
    test: int | None
    ood: int | None
    toy: bool = False


SIZES: dict[Scale, Size] = {
    "smoke": Size(200, 100, 60, toy=True), "small": Size(None, 5000, 2000), "full": Size(None, None, None),
}  # fmt: skip
SETS = {TRAIN: "cifar10_lossless5k:train", TEST: "cifar10:test", CODED: "cifar10_jpeg:test"}
OOD: dict[str, tuple[str, str]] = {
    "CIFAR-100": ("cifar100:test", TEST),
    "tiny-ImageNet": ("tinyimagenet32:test", CODED),
    "traffic signs": ("gtsrb:test", TEST),
    "textures": ("dtd10:test+32x32", TEST),
}
"""Each with the in-distribution set of its coding: a JPEG's traces alone tell it from pictures without loss."""
TOYS = {TRAIN: "digits:train", TEST: "digits:test", CODED: "digits:test"}
TOY_OOD: dict[str, tuple[str, str]] = {"CIFAR-100": ("noise:uniform", TEST), "textures": ("noise:normal", CODED)}


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Observe each network on every set, once; then scores of two of them, and the mixture of all; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="cifar10-resnets", scale=scale, seed=seed, size=size)
    sets, ood = _sets(size, seed)
    named = {f"toy {k}": partial(_toy, k, folder) for k in range(2)} if size.toy else {
        f"ResNet-{depth}": partial(trained, depth) for depth in FILES
    }  # fmt: skip
    seen: dict[str, dict[str, Observations]] = {}
    scored: dict[str, dict[str, dict[str, float]]] = {}
    for number, (name, make) in enumerate(named.items()):
        say(f"{name}: one pass over every set")
        model = make()
        seen[name] = {
            title: _seen(model, spec, folder / f"{name}, {title}.safetensors") for title, spec in sets.items()
        }
        if number in (0, len(named) - 1):
            say(f"{name}: scores")
            head = heads.find(model, next(iter(sets[TEST]))[0][:16])
            judge = partial(_scored, head, seen[name], ood)
            scored[name] = folders.stored(folder / f"{name}.json", judge)
    say("as an ensemble")
    judged = {name: _judged([one], ood) for name, one in seen.items()}
    judged[ENSEMBLE] = _judged(list(seen.values()), ood)
    return conclude(scale, seed, list(ood), {title: len(source) for title, source in sets.items()}, judged, scored)


def _sets(size: Size, seed: int) -> tuple[dict[str, data.Source], dict[str, str]]:
    """Every set by title, and of each OOD set the in-distribution one that it is set against."""
    own, others = (TOYS, TOY_OOD) if size.toy else (SETS, OOD)
    most = {TRAIN: size.train, TEST: size.test, CODED: size.test}
    sets = {title: _some(data.load(spec), most[title], seed) for title, spec in own.items()}
    for title, (spec, _) in others.items():
        sets[title] = _some(data.load(spec, like=sets[TEST], seed=seed), size.ood, seed)
    return sets, {title: against for title, (_, against) in others.items()}


def _some(source: data.Source, most: int | None, seed: int) -> data.Source:
    if most is None or most >= len(source):
        return source
    return data.subset(source, torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:most])


def _toy(number: int, folder: Path) -> nn.Module:
    place = folder / f"toy-{number}"
    place.mkdir(exist_ok=True)
    return networks.toy(number, place)


def _seen(model: nn.Module, source: data.Source, path: Path) -> Observations:
    """What an earlier part of this run kept of the same pass, or the pass."""
    if path.exists():
        return load(path)
    return observe(model, source, name=path.stem, path=path)


def _scored(head: heads.HeadLayer, seen: Mapping[str, Observations], ood: Mapping[str, str]) -> dict[str, Any]:
    """AUROC in % of every score that costs no pass of its own, by OOD set; those that do not fit are left out."""
    material = Material(seen[TRAIN], head.head, seen[TRAIN])
    fitted = catalog.fit(catalog.resolve(None), material, left_out={})
    values, _ = catalog.evaluate(fitted, {title: seen[title] for title in (TEST, CODED, *ood)})
    return {
        name: {title: common.detection(found[against], found[title])["auroc"] for title, against in ood.items()}
        for name, found in values.items()
    }


def _judged(members: list[Mapping[str, Observations]], ood: Mapping[str, str]) -> dict[str, float]:
    """Accuracy, NLL and ECE of the mean probabilities, and AUROC in % of three scores of them, by OOD set."""

    def drawn(title: str) -> Tensor:
        return torch.stack([one[title].logits for one in members]).double()

    logits, labels = log_mean(drawn(TEST)), members[0][TEST].labels
    found = {
        "accuracy": 100 * float((logits.argmax(dim=1) == labels).double().mean()),
        "NLL": float(proper.nll(logits, labels)),
        "ECE": 100 * float(calibration.ece(calibration.confidence_bins(logits.softmax(dim=1), labels))),
    }
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        "msp": lambda draws: msp(log_mean(draws)),
        "entropy": predictive_entropy,
        "energy": lambda draws: torch.stack([energy(one) for one in draws]).mean(dim=0),  # of each network's own logits
    }
    if len(members) > 1:  # one network has no one to disagree with
        scores["mutual information"] = mutual_information
    for score, function in scores.items():
        for title, against in ood.items():
            found[f"{score}, {title}"] = common.detection(function(drawn(against)), function(drawn(title)))["auroc"]
    return found
