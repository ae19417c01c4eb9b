"""Networks of the study of adversarial examples: sizes, and what each network is trained with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from caveat import data, models
from caveat.data import Source
from caveat.objectives import Adversarial, Objective, Trades, cross_entropy
from caveat.records.findings import Scale
from caveat.training import fit

__all__ = ["PLAIN", "SIZES", "TWIN", "Size", "objectives", "slug", "trained"]

PLAIN, TWIN = "plain", "plain, other seed"


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    set: str
    radius: float
    """Of norm inf, in training and attack."""
    train: int | None
    epochs: int
    warm: int
    """Epochs with a smaller radius first, for the adversarial trainings."""
    inner: int
    """Steps of PGD in training."""
    width: int
    hidden: int
    steps: int
    restarts: int
    judged: int
    few: int
    """Pictures for the L1 attacks."""
    priced: int
    """Steps of the L1 attack for each penalty tried."""
    curve: int
    """Pictures for the curves over the radius."""
    radii: tuple[float, ...]


SIZES: dict[Scale, Size] = {
    "smoke": Size(set="digits", radius=0.1, train=None, epochs=6, warm=1, inner=2, width=8, hidden=32, steps=5,
                  restarts=2, judged=40, few=4, priced=30, curve=10, radii=(0.0, 0.1)),
    "small": Size(set="mnist", radius=0.3, train=15_000, epochs=5, warm=2, inner=7, width=16, hidden=128, steps=40,
                  restarts=5, judged=500, few=100, priced=100, curve=200, radii=(0.0, 0.05, 0.1, 0.2, 0.3, 0.4)),
    "full": Size(set="mnist", radius=0.3, train=None, epochs=25, warm=2, inner=40, width=32, hidden=1024, steps=40,
                 restarts=20, judged=10_000, few=1000, priced=200, curve=1000,
                 radii=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
}  # fmt: skip


def objectives(size: Size, radius: float) -> dict[str, Objective]:
    """What each network is trained with, against changes of that radius."""
    return {
        PLAIN: cross_entropy,
        TWIN: cross_entropy,
        "MLP": cross_entropy,
        "FGSM-trained": Adversarial(radius=radius, steps=1, step=1.25 * radius),
        "PGD-trained": Adversarial(radius=radius, steps=size.inner),
        "TRADES": Trades(radius=radius, steps=size.inner),
    }


def trained(name: str, train: Source, size: Size, seed: int, place: Path) -> tuple[nn.Module, float]:
    """Adam with a falling rate; the radius grows over the first epochs, without which training may not start."""
    own = seed + (1000 if name == TWIN else 0)
    channels, side = train.shape[:2]
    generator = torch.Generator().manual_seed(own)
    if name == "MLP":
        model: nn.Module = models.mlp(channels=channels, size=side, generator=generator)
    else:
        model = models.lenet(
            channels=channels, size=side, width=size.width, hidden=size.hidden, generator=generator
        )  # fmt: skip
    batches = data.shuffled(train, batch=64, generator=torch.Generator().manual_seed(own + 1), drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.epochs * len(batches), eta_min=1e-5)
    noise = torch.Generator().manual_seed(own + 2)
    radii = [size.radius * (phase + 1) / (size.warm + 1) for phase in range(size.warm)] + [size.radius]
    seconds = 0.0
    for phase, radius in enumerate(radii):
        history = fit(
            model, batches, objectives(size, radius)[name], optimizer=optimizer, schedule=schedule, generator=noise,
            epochs=1 if phase < size.warm else size.epochs - size.warm, checkpoint_every=100,
            checkpoint=place / slug(name) / f"phase-{phase}.safetensors", progress=False,
        )  # fmt: skip
        seconds += sum(history.seconds)
    return model.eval(), seconds


def slug(name: str) -> str:
    """A network's name as that of its folder."""
    return name.lower().replace(",", "").replace(" ", "-")
