"""Gradient uncertainty and meta classification: detecting misclassified digits and OOD inputs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caveat import data
from caveat.data import outliers
from caveat.data.named import under_root
from caveat.observations import Observations, observe
from caveat.records.findings import Findings, Scale
from caveat.scores import activations, gradients, meta
from caveat.scores.logits import entropy, msp
from caveat.studies.gradient_uncertainty.findings import MIXTURES, conclude
from caveat.studies.gradient_uncertainty.training import FEW, SIZES, WHOLE, Size, trained
from caveat.studies.kit import common
from caveat.studies.kit import folder as folders

__all__ = ["run"]

LAYERS = ("conv1", "conv2", "conv3", "head")
Columns = Mapping[str, Tensor]
"""Of one set, by kind: `paper` (29 columns), `all`, `activations`, `both`."""


@dataclass(frozen=True)
class Sets:
    """Pictures in memory: bytes of the in-distribution ones, floats of the OOD ones."""

    images: Tensor
    labels: Tensor
    ood: dict[str, Tensor]
    few: dict[str, Tensor]
    """OOD inputs that meta classifiers are fitted on; none of them is judged."""
    names: dict[str, str]
    """What the sets are, as it is shown."""


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train CNNs on re-drawn splits, take the statistics of their gradients, fit meta classifiers, compare."""
    whole = scale == "full" and all(place is not None and place.exists() for place in _emnist())
    size = WHOLE if whole else SIZES[scale]
    folders.claim(folder, study="gradient-uncertainty", scale=scale, seed=seed, size=size)
    sets = _sets(scale, size, seed, whole=whole)
    seeds = [seed + number for number in range(size.nets)]
    found: list[dict[str, Any]] = []
    for one in seeds:
        place = folder / f"cnn-{one}"
        make = partial(_one, sets, size, one, place, say, drawn=one == seed)
        found.append(folders.stored(place / "figures.json", make))
    return conclude(found, scale=scale, seeds=seeds, size=vars(size), names=sets.names)


def _emnist() -> list[Path | None]:
    """Where digits and letters would be."""
    return [under_root("emnist_digits"), under_root("emnist_letters")]


def _sets(scale: Scale, size: Size, seed: int, *, whole: bool) -> Sets:
    """MNIST's digits, or with `whole` EMNIST's, and the OOD sets."""
    if scale == "smoke":
        inside, specs = ["digits:train+28x28", "digits:test+28x28"], {"blobs": "blobs"}
    else:
        emnist = _emnist()
        inside = [f"parquet:{emnist[0]}/{part}-*.parquet" for part in ("train", "test")] if whole else []
        inside = inside or ["mnist:train", "mnist:test"]
        letters = f"parquet:{emnist[1]}/test-*.parquet" if whole else "notmnist_small"
        specs = {
            "letters": letters, "KMNIST": "kmnist:test", "Omniglot": "omniglot+invert+28x28",
            "CIFAR-10": "cifar10:test+grey+28x28",
        }  # fmt: skip
    digits = [common.pictures(data.load(spec)) for spec in inside]
    images = torch.cat([part for part, _ in digits]).mul_(255).round_().to(torch.uint8)
    like = data.from_tensors(images)
    generator = torch.Generator().manual_seed(seed)
    ood: dict[str, Tensor] = {}
    few: dict[str, Tensor] = {}
    for name, spec in specs.items():
        pictures = data.load(spec, like=like)
        order = torch.randperm(len(pictures), generator=generator)[: FEW + size.ood]
        drawn = pictures.take(order)[0]
        few[name], ood[name] = drawn[:FEW], drawn[FEW:]
    for name, make in (("uniform", outliers.uniform), ("normal", outliers.normal)):
        few[name] = make((FEW, *like.shape), generator)
        ood[name] = make((size.ood, *like.shape), generator)
    names = {"in-distribution": " and ".join(inside) if not whole else "EMNIST digits", **specs}
    return Sets(images, torch.cat([labels for _, labels in digits]), ood, few, names)


def _one(sets: Sets, size: Size, seed: int, place: Path, say: Callable[[str], None], *, drawn: bool) -> dict[str, Any]:
    """All figures of one CNN."""
    order = torch.randperm(len(sets.images), generator=torch.Generator().manual_seed(seed))
    parts = order.split([size.train, size.held_out, size.test, len(order) - size.train - size.held_out - size.test])
    say(f"CNN {seed}: training")
    training, validation = (data.from_tensors(sets.images[part], sets.labels[part]) for part in parts[:2])
    net, restarts = trained(training, validation, size, seed, place / "cnn.safetensors")
    say(f"CNN {seed}: statistics of gradients")
    probes = {
        "gradients": gradients.probe(net, sets.few["uniform"]),
        "activations": activations.probe(net, sets.few["uniform"]),
    }

    def seen(images: Tensor, labels: Tensor | None = None) -> Observations:
        return observe(net, data.from_tensors(images, labels), features=False, probes=probes)

    held_out = seen(sets.images[parts[1]], sets.labels[parts[1]])
    test = seen(sets.images[parts[2]], sets.labels[parts[2]])
    ood = {name: seen(images) for name, images in sets.ood.items()}
    few = {name: seen(images) for name, images in sets.few.items()}
    say(f"CNN {seed}: meta classifiers")
    wrong = test.logits.argmax(dim=1) != test.labels
    correct = test.part((~wrong).nonzero().flatten())
    others = {"wrong": test.part(wrong.nonzero().flatten()), **ood}
    figures: dict[str, Any] = {
        "restarts": restarts,
        "accuracy": 100 * float((~wrong).double().mean()),
        "single": _judged(_single(held_out), correct, others),
        "meta": _judged(_classifiers(held_out, few, seed), correct, others),
    }
    if drawn:
        figures |= _drawn(held_out, few, correct, others, seed)
    return figures


Score = Callable[[Observations], Tensor]


def _columns(seen: Observations, kind: str = "gradients") -> Tensor:
    """29 columns: the entropy, and seven statistics of four layers. What is over all layers is left out."""
    used = len(LAYERS) * len(gradients.STATISTICS)
    return torch.cat([seen.probed[kind][:, :used].double(), entropy(seen.logits.double()).unsqueeze(1)], dim=1)


def names() -> tuple[str, ...]:
    """Of the 29 columns."""
    return (*(f"{layer}/{statistic}" for layer in LAYERS for statistic in gradients.STATISTICS), "entropy")


def _single(held_out: Observations) -> dict[str, Score]:
    """Softmax, entropy, and each statistic over all layers; the direction is that of the validation data."""
    made: dict[str, Score] = {
        "softmax": lambda seen: msp(seen.logits.double()),
        "entropy": lambda seen: entropy(seen.logits.double()),
    }
    wrong = held_out.logits.argmax(dim=1) != held_out.labels

    def column(place: int) -> Score:
        values = held_out.probed["gradients"][:, place].double()
        sign = 1.0 if common.detection(values[~wrong], values[wrong])["auroc"] >= 50 else -1.0
        return lambda seen: sign * seen.probed["gradients"][:, place].double()

    size = len(gradients.STATISTICS)
    for place, statistic in enumerate(gradients.STATISTICS):
        made[f"{statistic}, all layers"] = column(len(LAYERS) * size + place)
    made["l1, head"] = column(LAYERS.index("head") * size)
    return made


def _classifiers(held_out: Observations, few: Mapping[str, Observations], seed: int) -> dict[str, Score]:
    wrong = held_out.logits.argmax(dim=1) != held_out.labels

    def data_with(*kinds: str, of: str = "gradients") -> tuple[Tensor, Tensor]:
        parts = [_columns(held_out, of), *(_columns(few[kind], of) for kind in kinds if kind in few)]
        extra = sum(map(len, parts)) - len(wrong)
        return torch.cat(parts), torch.cat([wrong, torch.ones(extra, dtype=torch.bool)])

    def draw() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    plain: dict[str, Any] = {"log": False, "clip": False}
    made: dict[str, Any] = {
        "GLM, as published": meta.glm(*data_with(), **plain),
        "LASSO, as published": meta.lasso(*data_with(), strength=1.0, **plain),
        "ridge, as published": meta.ridge(*data_with(), strength=1.0, **plain),
        "elastic net, as published": meta.elastic_net(*data_with(), strength=1.0, **plain),
        "GLM": meta.glm(*data_with()),
        "LASSO": meta.lasso(*data_with(), generator=draw()),
        "ridge": meta.ridge(*data_with(), generator=draw()),
        "elastic net": meta.elastic_net(*data_with(), generator=draw()),
    }
    for mixture, kinds in MIXTURES.items():
        made[f"NN, as published; {mixture}"] = meta.network(*data_with(*kinds), generator=draw(), **plain)
        made[f"NN; {mixture}"] = meta.network(*data_with(*kinds), generator=draw())
        made[f"LASSO; {mixture}"] = meta.lasso(*data_with(*kinds), generator=draw())
        made[f"trees; {mixture}"] = meta.trees(*data_with(*kinds), generator=draw())
    scores: dict[str, Score] = {name: _on("gradients", fitted) for name, fitted in made.items()}
    for mixture in ("validation", "validation + noise"):
        kinds = MIXTURES[mixture]
        name = f"NN on activations; {mixture}"
        scores[name] = _on("activations", meta.network(*data_with(*kinds, of="activations"), generator=draw()))
    return scores


def _on(kind: str, fitted: Any) -> Score:
    return lambda seen: fitted.log_odds(_columns(seen, kind))


def _judged(
    scores: Mapping[str, Score], correct: Observations, others: Mapping[str, Observations]
) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics by score and set, each set against the correct predictions."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, score in scores.items():
        right = score(correct)
        found[name] = {other: common.detection(right, score(seen)) for other, seen in others.items()}
    return found


def _drawn(
    held_out: Observations, few: Mapping[str, Observations], correct: Observations, others: Mapping[str, Observations],
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What the figures of the first CNN show: values of the metrics, the LASSO's path, importances."""
    wrong = held_out.logits.argmax(dim=1) != held_out.labels
    noisy = torch.cat([_columns(held_out), _columns(few["uniform"])])
    positive = torch.cat([wrong, torch.ones(len(few["uniform"]), dtype=torch.bool)])
    path = meta.path(_columns(held_out), wrong)
    network = meta.network(noisy, positive, generator=torch.Generator().manual_seed(seed))
    judged = torch.cat([_columns(seen) for seen in (correct, *others.values())])
    truth = torch.arange(len(judged)) >= len(correct)
    shuffled = meta.importances(
        network, judged, truth, meta.groups(names()), generator=torch.Generator().manual_seed(seed), repeats=3
    )
    return {
        "strips": list(_strips({"correct": correct, **others})),
        "path": [
            {"strength": float(strength), "column": name, "coefficient": round(float(weight), 5)}
            for strength, weights in zip(path.strengths, path.weights, strict=True)
            for name, weight in zip(names(), weights, strict=True)
        ],
        "importances": {name: round(value, 5) for name, value in shuffled.items()},
    }


def _strips(sets: Mapping[str, Observations]) -> Iterator[dict[str, Any]]:
    """Histograms of every statistic over all layers: norms and kurtosis by powers of ten."""
    first = len(LAYERS) * len(gradients.STATISTICS)
    for place, statistic in enumerate(gradients.STATISTICS):
        values = {name: seen.probed["gradients"][:, first + place].double() for name, seen in sets.items()}
        if statistic not in ("mean", "skewness"):
            values = {name: column.abs().clamp_min(1e-30).log10() for name, column in values.items()}
        low = min(float(column.quantile(0.01)) for column in values.values())
        high = max(float(column.quantile(0.99)) for column in values.values())
        edges = torch.linspace(low, high, 41, dtype=torch.float64)
        for name, column in values.items():
            counts = torch.bincount(torch.bucketize(column, edges[1:-1]), minlength=40).double()
            shares = (counts / counts.max()).tolist()
            for left, right, share in zip(edges[:-1].tolist(), edges[1:].tolist(), shares, strict=True):
                if share > 0.005:
                    yield {"statistic": statistic, "set": name, "from": float(f"{left:.4g}"),
                           "to": float(f"{right:.4g}"), "share": round(share, 3)}  # fmt: skip
