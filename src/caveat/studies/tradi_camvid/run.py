"""TRADI on street scenes (CamVid): detecting pixels of classes that training never showed."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import posteriors
from caveat.audits.dense.audit import audit_dense
from caveat.data import scenes as sets
from caveat.data.scenes import Scenes, ShuffledScenes
from caveat.data.segmentation import open_bdd_anomaly, open_camvid, open_street_hazards
from caveat.mixture import log_mean
from caveat.models import enet, pspnet
from caveat.objectives import pixel_cross_entropy
from caveat.posteriors import Dropout, Ensemble, dropout, ensemble, perturbation, swag, tradi
from caveat.records.findings import Figure, Findings, Scale, Shot
from caveat.studies.kit import common, plots
from caveat.studies.kit.pixels import Answer, measure
from caveat.studies.kit.toy_scenes import write_toy_camvid
from caveat.studies.tradi_camvid.findings import MANY, MASKS, NOISE, ONE, OURS, SWAG, claims, tables
from caveat.training import checkpoint as files
from caveat.training import fit, members

__all__ = ["run"]

SOURCE = (
    "Franchi, Bursuc, Aldea, Dubuisson and Bloch, TRADI: Tracking Deep Neural Network Weight Distributions, ECCV 2020 "
    "(arXiv 1912.11316); figures of the authors' slides."
)


@dataclass(frozen=True)
class Recipe:
    """One set and how its networks are trained."""

    name: str
    train: Callable[[], Scenes]
    test: Callable[[], Scenes]
    network: Callable[..., nn.Module]
    epochs: int
    members: int
    draws: int
    batch: int = 4
    rate: float = 2e-3
    per_image: bool = False

    def trained(
        self, batches: ShuffledScenes, classes: int, seed: int, checkpoint: Path, *, tracked: bool = False
    ) -> tuple[nn.Module, list[tradi.Tracker | swag.Tracker]]:
        """A network of this seed; the same weights with and without trackers."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.network(classes=classes, generator=torch.Generator().manual_seed(seed)).to(device)
        batches = replace(batches, generator=torch.Generator().manual_seed(seed + 1))
        steps = len(batches)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate, weight_decay=2e-4)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, 3 * self.epochs // 4) * steps, 0.2)
        trackers: list[tradi.Tracker | swag.Tracker] = []
        if tracked:
            trackers = [
                tradi.start(model, optimizer, burn_in=self.epochs // 2 * steps),
                swag.start(model, burn_in=3 * self.epochs // 4 * steps, every=max(1, steps // 4)),
            ]
        shares = sets.shares(batches, classes=classes)
        objective = partial(pixel_cross_entropy, weights=(1 / (1.02 + shares).log()).tolist())
        fit(
            model, batches, objective, optimizer=optimizer, schedule=schedule, epochs=self.epochs, trackers=trackers,
            generator=torch.Generator().manual_seed(seed + 2), checkpoint=checkpoint,
        )  # fmt: skip
        return model.eval(), trackers


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train, track, sample and compare; see `studies`."""
    recipes, left_out = _recipes(folder, scale)
    found: dict[str, dict[str, dict[str, float]]] = {}
    seconds: dict[str, float] = {}
    shots: list[Shot] = []
    figures: list[Figure] = []
    for recipe in recipes:
        figures_of, spent, seen = study_of(recipe, folder / recipe.name.lower(), seed, say)
        found[recipe.name] = figures_of
        seconds |= {f"{recipe.name}: {name}": value for name, value in spent.items()}
        shots += seen
        rows = [{"method": m, "AUC": f["AUC"], "FPR95": f["FPR95"]} for m, f in figures_of.items()]
        figures.append(Figure(title=f"{recipe.name}: OOD pixels", spec=plots.lines(
            rows, x="FPR95", y="AUC", colour="method", description="AUC against FPR95 of each method"),
            caption="Up and left is better."))  # fmt: skip
    return common.findings(
        study="tradi-camvid",
        title="TRADI on street scenes: which pixels are of a kind that was never taught?",
        source=SOURCE,
        scale=scale,
        seeds=[seed],
        settings={"epochs": recipes[0].epochs, "members": recipes[0].members, "draws": recipes[0].draws,
                  "rate": recipes[0].rate, "batch": recipes[0].batch, "size": str(recipes[0].test().size)},
        reduced=_reduced(recipes[0], scale),
        claims=[] if scale == "smoke" else claims(found["CamVid"]),
        notes=_notes(scale, left_out),
        tables=[table for name, methods in found.items() for table in tables(name, methods, scale)],
        figures=figures,
        shots=shots,
        seconds=seconds,
    )  # fmt: skip


def study_of(
    recipe: Recipe, place: Path, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, dict[str, float]], dict[str, float], list[Shot]]:
    """Figures of every method on one set, training times, and what the networks say of the strangest scenes."""
    train, test = recipe.train(), recipe.test()
    classes = len(train.classes)
    say(f"{recipe.name}: reading {len(train)} scenes")
    batches = sets.shuffled_scenes(train, batch=recipe.batch, generator=torch.Generator())
    say(f"{recipe.name}: one network, tracked by TRADI and SWAG")
    model, trackers = recipe.trained(batches, classes, seed, place / "base.safetensors", tracked=True)
    say(f"{recipe.name}: {recipe.members - 1} more networks for the deep ensemble")

    def member(number: int, checkpoint: Path) -> nn.Module:
        return recipe.trained(batches, classes, number, checkpoint)[0]

    # trackers only watch: the tracked network is a member like the others
    numbers = [1000 * (seed + 1) + k for k in range(1, recipe.members)]
    others = members(member, seeds=numbers, folder=place / "members")
    many = ensemble.stack([ensemble.state(model), *(others.member(k) for k in range(len(others)))])
    say(f"{recipe.name}: draws")
    draw = torch.Generator().manual_seed(seed)
    renewing = list(replace(batches, generator=torch.Generator().manual_seed(seed)))[:40]
    tracked, averaged = trackers

    def sampled(posterior: posteriors.Posterior) -> Ensemble:
        return posteriors.sample(posterior, model, draws=recipe.draws, generator=draw, batches=renewing)

    drawn = sampled(tracked.posterior())
    methods: dict[str, Ensemble | Dropout | None] = {
        ONE: None,
        NOISE: sampled(perturbation.fit(model, scale=0.1)),
        MASKS: dropout.of(model),
        MANY: many,
        OURS: drawn,
        SWAG: sampled(averaged.posterior()),
    }
    spent = {"tracked network": _seconds(place / "base.safetensors")}
    plain = [_seconds(place / "members" / f"member-{number}.checkpoint.safetensors") for number in numbers]
    spent["one network"] = sum(plain) / len(plain)
    found: dict[str, dict[str, float]] = {}
    for name, posterior in methods.items():
        say(f"{recipe.name}: {name}")
        found[name] = measure(_answer(model, posterior, recipe), test, per_image=recipe.per_image)
        cost = {MANY: float(recipe.members), OURS: spent["tracked network"] / spent["one network"]}
        found[name]["training, x plain"] = cost.get(name, cost[OURS] if name == SWAG else 1.0)
    say(f"{recipe.name}: scenes")
    return found, spent, _shots(recipe, model, {ONE: None, MANY: many, OURS: drawn}, test)


def _answer(model: nn.Module, posterior: Ensemble | Dropout | None, recipe: Recipe) -> Answer:
    anchor = next(model.parameters())

    def answer(inputs: Tensor) -> Tensor:
        inputs = inputs.to(anchor.device)
        with torch.inference_mode():
            if posterior is None:
                return model(inputs)
            count = recipe.draws if isinstance(posterior, Dropout) else None
            generator = torch.Generator().manual_seed(0)
            return log_mean(posteriors.predict(posterior, model, inputs, generator=generator, draws=count))

    return answer


def _shots(recipe: Recipe, model: nn.Module, methods: dict[str, Ensemble | Dropout | None], test: Scenes) -> list[Shot]:
    """Two scenes with many OOD pixels: picture, labels, then confidence and uncertainty of each method."""
    chosen = _strangest(test, 2)
    shots: list[Shot] = []
    for number in chosen:
        one = replace(test, pictures=test.pictures[number : number + 1], maps=test.maps[number : number + 1])
        for place, (name, posterior) in enumerate(methods.items()):
            network = model if posterior is None else posteriors.Predictive(model, posterior).eval()
            seen = audit_dense(network, one, scenes=1, replicas=2, scores=_shown(posterior)).scenes
            assert seen is not None
            view = seen.shown[0]
            if place == 0:
                shots += [
                    Shot(title=f"{recipe.name} {number}: input", png=view.picture),
                    Shot(title="labels", png=view.labels, caption=", ".join(test.ood) + ": never taught"),
                ]
            shots.append(Shot(title=f"confidence, {name}", png=view.confidence, caption="Light: sure."))
            if posterior is not None:
                shots.append(Shot(title=f"uncertainty, {name}", png=view.uncertainty, caption="Mutual information."))
    return shots


def _shown(posterior: Ensemble | Dropout | None) -> list[str]:
    return ["entropy"] if posterior is None else ["mutual_information"]


def _strangest(test: Scenes, count: int) -> list[int]:
    share = torch.cat(
        [((labels >= len(test.classes)) & (labels != test.void)).double().mean((1, 2)) for _, labels in test]
    )
    return share.argsort(descending=True)[:count].tolist()


def _seconds(checkpoint: Path) -> float:
    return sum(files.load(checkpoint)["history"]["seconds"])


def _recipes(folder: Path, scale: Scale) -> tuple[list[Recipe], list[str]]:
    """What can be run at this scale with the data that are there, and what cannot."""
    ood = ("pedestrian", "bicyclist", "car")

    def camvid(split: str, size: tuple[int, int] | None, root: Path | None = None) -> Callable[[], Scenes]:
        return partial(open_camvid, split, root=root, ood=ood, size=size)

    if scale == "smoke":
        root = folder / "toy"
        write_toy_camvid(root)
        return [Recipe("CamVid", camvid("train", None, root), camvid("test", None, root), enet,
                       epochs=4, members=2, draws=2)], []  # fmt: skip
    if scale == "small":
        size = (144, 192)
        return [Recipe("CamVid", camvid("train", size), camvid("test", size), enet,
                       epochs=16, members=3, draws=8)], []  # fmt: skip
    recipes = [
        Recipe("CamVid", camvid("train", None), camvid("test", None), enet, epochs=300, members=10, draws=20,
               batch=10, rate=5e-4)
    ]  # fmt: skip
    missing: list[str] = []
    openers = {"StreetHazards": open_street_hazards, "BDD-Anomaly": open_bdd_anomaly}
    for name, opened in openers.items():
        train, test = (partial(opened, split, size=(360, 640)) for split in ("train", "test"))
        if (Path(os.environ.get("CAVEAT_DATA", "")) / name).is_dir():
            network = partial(pspnet, backbone="resnet50")
            recipes.append(
                Recipe(name, train, test, network, epochs=20, members=10, draws=20, rate=1e-3, per_image=True)
            )
        else:
            missing.append(f"{name} is not under CAVEAT_DATA; with it and a GPU, full runs it too, with PSPNet.")
    return recipes, missing


def _notes(scale: Scale, left_out: list[str]) -> list[str]:
    notes = ["Training times are of wall clock: their ratios mean something on an idle machine only.", *left_out]
    return (
        [*notes, "Smoke: drawn scenes, to see that all works; the figures mean nothing."] if scale == "smoke" else notes
    )


def _reduced(recipe: Recipe, scale: Scale) -> list[str]:
    common_ones = [
        "Pixels without a label (void) are left out; the source scores all pixels.",
        "Tracking starts at half of the epochs; SWAG takes four snapshots an epoch in the last quarter; the noise of "
        "the Gaussian perturbation is a tenth of each tensor's root mean square: the source leaves them open.",
        "The last epoch is judged; nothing is chosen on test data.",
    ]
    if scale == "full":
        return common_ones
    return [
        f"Pictures of {recipe.test().size} instead of (360, 480), {recipe.epochs} epochs instead of 300, "
        f"{recipe.members} members instead of 10, {recipe.draws} draws instead of 20: minutes on one core.",
        *common_ones,
    ]
