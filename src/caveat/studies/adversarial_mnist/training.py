"""Networks of the study of adversarial examples: sizes, and what each network is trained with."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import models
from caveat.data import Source
from caveat.objectives import Adversarial, CrownIbp, Ibp, Objective, Trades, cross_entropy
from caveat.records.findings import Scale
from caveat.studies.kit.networks import strided
from caveat.training import recipe

__all__ = ["CERTIFIED", "NARROW", "PLAIN", "SIZES", "TWIN", "Size", "build", "objectives", "slug", "trained"]

PLAIN, TWIN = "plain", "plain, other seed"
NARROW = "IBP, smaller radius"
CERTIFIED = ("IBP", NARROW, "CROWN-IBP")


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    set: str
    radius: float
    """Of norm inf, in training and attack."""
    train: int | None
    epochs: int
    """Of the networks that see no attack, and of FGSM training twice as many."""
    attacked: int
    """Epochs of PGD training and TRADES."""
    certified: int
    """Epochs of IBP."""
    narrow: int
    """Epochs of IBP within two thirds of the radius."""
    crown: int
    """Epochs of CROWN-IBP; one of those in which the radius grows costs eleven of IBP."""
    warm: int
    """Of these the first, with a smaller radius; also of FGSM training."""
    inner: int
    """Steps of PGD in training."""
    width: int
    hidden: int
    steps: int
    restarts: int
    judged: int
    struck: int
    """Pictures for the strongest attack, and for certificates by DeepPoly."""
    queries: int
    """Of the strongest attack's last member."""
    few: int
    """Pictures for the L1 attacks."""
    priced: int
    """Steps of the L1 attack for each penalty tried."""
    curve: int
    """Pictures for the curves over the radius."""
    radii: tuple[float, ...]


SIZES: dict[Scale, Size] = {
    "smoke": Size(set="digits", radius=0.1, train=None, epochs=10, attacked=8, certified=10, narrow=10, crown=10,
                  warm=1, inner=2, width=8, hidden=32, steps=5, restarts=2, judged=40, struck=6, queries=20, few=4,
                  priced=30, curve=10, radii=(0.0, 0.1)),
    "small": Size(set="mnist", radius=0.3, train=15_000, epochs=5, attacked=10, certified=20, narrow=20, crown=8,
                  warm=2, inner=7, width=16, hidden=100, steps=40, restarts=5, judged=500, struck=50, queries=1000,
                  few=100, priced=100, curve=200, radii=(0.0, 0.05, 0.1, 0.2, 0.3, 0.4)),
    "full": Size(set="mnist", radius=0.3, train=None, epochs=6, attacked=20, certified=70, narrow=30, crown=40,
                 warm=2, inner=7, width=16, hidden=100, steps=40, restarts=20, judged=1000, struck=200, queries=5000,
                 few=100, priced=200, curve=500, radii=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)),
}  # fmt: skip


@dataclass(frozen=True)
class _Rising:
    """An objective whose radius grows over the first epochs: at the whole radius at once training may not begin."""

    goal: Adversarial | Trades
    warm: int

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self.goal(model, inputs, labels, generator)

    def phases(self, epochs: int) -> list[tuple[Objective, int]]:
        """What to train by in which epochs."""
        parts = [k / (self.warm + 1) for k in range(1, self.warm + 1)]
        step, radius = self.goal.step, self.goal.radius
        rising: list[tuple[Objective, int]] = [
            (replace(self.goal, radius=radius * part, step=None if step is None else step * part), 1) for part in parts
        ]
        return [*rising, (self.goal, epochs - self.warm)]


def objectives(size: Size, radius: float) -> dict[str, tuple[Objective, int]]:
    """What each network is trained with, against changes of that radius, and its epochs."""
    fast = Adversarial(radius=radius, steps=1, step=1.25 * radius)
    return {
        PLAIN: (cross_entropy, size.epochs),
        TWIN: (cross_entropy, size.epochs),
        "MLP": (cross_entropy, size.epochs),
        "FGSM-trained": (_Rising(fast, size.warm), 2 * size.epochs),
        "PGD-trained": (_Rising(Adversarial(radius=radius, steps=size.inner), size.warm), size.attacked),
        "TRADES": (_Rising(Trades(radius=radius, steps=size.inner), size.warm), size.attacked),
        "IBP": (Ibp(radius=radius), size.certified),
        NARROW: (Ibp(radius=2 * radius / 3), size.narrow),  # twice that of the smaller certificate, as Gowal et al.
        "CROWN-IBP": (CrownIbp(radius=radius), size.crown),
    }


def trained(name: str, train: Source, size: Size, seed: int, place: Path) -> tuple[nn.Module, float]:
    """As `caveat train` does it, stored in the folder; the network and the seconds it took."""
    own = seed + (1000 if name == TWIN else 0)
    generator = torch.Generator().manual_seed(own)
    if name == "MLP":
        model: nn.Module = models.mlp(channels=train.shape[0], size=train.shape[1], generator=generator)
    else:
        model = strided(train.shape, size.width, size.hidden, generator)
    goal, epochs = objectives(size, size.radius)[name]
    recipe.begin(model, goal, generator)
    history, _ = recipe.train(
        model, train, epochs=epochs, rate=3e-3, batch=100, generator=torch.Generator().manual_seed(own + 1), goal=goal,
        checkpoint=place / slug(name) / "checkpoint.safetensors",
    )  # fmt: skip
    return model.eval(), sum(history.seconds)


def build() -> nn.Module:
    """The network of the scale `full`: for `caveat audit` and the weights of one that the study trained."""
    size = SIZES["full"]
    return strided((1, 28, 28), size.width, size.hidden, torch.Generator().manual_seed(0)).eval()


def slug(name: str) -> str:
    """A network's name as that of its folder."""
    return name.lower().replace(",", "").replace(" ", "-")
