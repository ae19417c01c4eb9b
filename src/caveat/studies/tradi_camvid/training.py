"""Networks of TRADI on street scenes: one recipe for each set, as far as its data are there."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from caveat.data import scenes as sets
from caveat.data.scenes import Scenes, ShuffledScenes
from caveat.data.segmentation import open_bdd_anomaly, open_camvid, open_street_hazards
from caveat.models import enet, pspnet
from caveat.objectives import pixel_cross_entropy
from caveat.posteriors import swag, tradi
from caveat.records.findings import Scale
from caveat.studies.kit.toy_scenes import write_toy_camvid
from caveat.training import fit

__all__ = ["SIZES", "Recipe", "Size", "recipes"]


@dataclass(frozen=True)
class Size:
    """How large the experiment on CamVid is."""

    epochs: int
    members: int
    draws: int
    batch: int = 4
    rate: float = 2e-3
    pictures: tuple[int, int] | None = None
    """Height and width; None: as they are."""


SIZES: dict[Scale, Size] = {
    "smoke": Size(epochs=4, members=2, draws=2),
    "small": Size(epochs=64, members=2, draws=8, pictures=(144, 192)),
    "full": Size(epochs=300, members=10, draws=20, batch=10, rate=5e-4),
}


@dataclass(frozen=True)
class Recipe:
    """One set and how its networks are trained."""

    name: str
    train: Callable[[], Scenes]
    test: Callable[[], Scenes]
    network: Callable[..., nn.Module]
    size: Size
    per_image: bool = False

    def trained(
        self, batches: ShuffledScenes, classes: int, seed: int, checkpoint: Path, *, track: bool = False
    ) -> tuple[nn.Module, tradi.Tracker, swag.Tracker]:
        """A network and its trackers, which watch the training if `track`: they change no weight."""
        epochs = self.size.epochs
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.network(classes=classes, generator=torch.Generator().manual_seed(seed)).to(device)
        batches = replace(batches, generator=torch.Generator().manual_seed(seed + 1))
        steps = len(batches)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.size.rate, weight_decay=2e-4)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, 3 * epochs // 4) * steps, 0.2)
        tracked = tradi.start(model, optimizer, burn_in=epochs // 2 * steps)
        averaged = swag.start(model, burn_in=3 * epochs // 4 * steps, every=max(1, steps // 4))
        shares = sets.shares(batches, classes=classes)
        objective = partial(pixel_cross_entropy, weights=(1 / (1.02 + shares).log()).tolist())
        fit(
            model, batches, objective, optimizer=optimizer, schedule=schedule, epochs=epochs,
            trackers=[tracked, averaged] if track else [],
            generator=torch.Generator().manual_seed(seed + 2), checkpoint=checkpoint,
        )  # fmt: skip
        return model.eval(), tracked, averaged


def recipes(folder: Path, scale: Scale) -> tuple[list[Recipe], list[str]]:
    """What can be run at this scale with the data that are there, and what cannot."""
    size = SIZES[scale]
    root = folder / "toy" if scale == "smoke" else None
    if root is not None:
        write_toy_camvid(root)
    opened = partial(open_camvid, root=root, ood=("pedestrian", "bicyclist", "car"), size=size.pictures)
    own = Recipe("CamVid", partial(opened, "train"), partial(opened, "test"), enet, size)
    return ([own], []) if scale != "full" else _with_large([own])


def _with_large(found: list[Recipe]) -> tuple[list[Recipe], list[str]]:
    """StreetHazards and BDD-Anomaly too, if they are there."""
    missing: list[str] = []
    size = Size(epochs=20, members=10, draws=20, rate=1e-3, pictures=(360, 640))
    network = partial(pspnet, backbone="resnet50")
    for name, opener in {"StreetHazards": open_street_hazards, "BDD-Anomaly": open_bdd_anomaly}.items():
        if (Path(os.environ.get("CAVEAT_DATA", "")) / name).is_dir():
            train, test = (partial(opener, split, size=size.pictures) for split in ("train", "test"))
            found.append(Recipe(name, train, test, network, size, per_image=True))
        else:
            missing.append(f"{name} is not under CAVEAT_DATA; with it and a GPU, scale full runs it too, with PSPNet.")
    return found, missing
