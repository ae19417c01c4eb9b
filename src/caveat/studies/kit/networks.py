"""What the studies share of networks: a small one, and posteriors fitted to a trained one, sampled, and measured."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from caveat import data, models, posteriors, weights
from caveat.data import Source
from caveat.data.named import missing, under_root
from caveat.metrics import calibration, proper
from caveat.mixture import log_mean
from caveat.models.initialise import built
from caveat.observations import observe
from caveat.posteriors import Dropout, Ensemble, laplace, perturbation
from caveat.scores.logits import msp
from caveat.studies.kit import common
from caveat.training import recipe

__all__ = ["Method", "last_layer", "measure", "mixture", "perturbed", "public", "state_of", "strided", "toy"]

Method = Callable[[Tensor], Tensor]
"""From inputs to the logits of a mixture."""


def strided(shape: Sequence[int], width: int, hidden: int, generator: torch.Generator) -> nn.Sequential:
    """Two convolutions of stride 2, `width` and `2 width` channels, and a hidden layer: quick to bound.

    A step takes a third of LeNet's time. With 16 and 100 it is the network of Wong, Rice and Kolter, ICLR 2020.
    """
    channels, side = shape[0], shape[1]
    return built(
        lambda: nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(2 * width * (side // 4) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, 10),
        ),
        generator,
    )  # fmt: skip


def toy(seed: int, folder: Path) -> nn.Module:
    """An MLP that saw 300 digits of 8 x 8 pixels twice, stored in the folder: for smoke tests."""
    generator = torch.Generator().manual_seed(seed)
    model = models.MODELS["mlp"](classes=10, channels=1, size=8, generator=generator)
    recipe.train(
        model, data.load("digits:train+first=300"), epochs=2, rate=3e-3, batch=64, generator=generator,
        checkpoint=folder / "toy.safetensors",
    )  # fmt: skip
    return model.eval()


def public(folder: str, file: str) -> Path:
    """The file of a public network, in a folder under CAVEAT_DATA.

    Raises
    ------
    DataError
        If it is not there.
    """
    there = under_root(folder)
    path = None if there is None else there / file
    if path is None or not path.exists():
        raise missing(folder, file)
    return path


def state_of(folder: str, name: str) -> dict[str, Tensor]:
    """The weights of a public network: a file of safetensors, as `public` finds it."""
    (state,) = weights.read(public(folder, f"{name}.safetensors"), name="study").values()
    return dict(state)


def perturbed(
    model: nn.Module, held: Source, renewing: list[tuple[Tensor, Tensor]], draw: torch.Generator
) -> perturbation.Perturbation:
    """Gaussian noise around the trained weights; its size is the one of the lowest NLL on validation data, of five."""
    inputs, labels = common.pictures(held)

    def loss(scale: float) -> float:
        drawn = posteriors.sample(
            perturbation.fit(model, scale=scale), model, draws=5, generator=draw, batches=renewing[:4]
        )
        mixed = log_mean(posteriors.predict(drawn, model, inputs, generator=draw))
        return float(proper.nll(mixed, labels))

    return perturbation.fit(model, scale=min((0.05, 0.1, 0.2, 0.5, 1.0), key=loss))


def last_layer(model: nn.Module, train: Source) -> laplace.Laplace:
    """Laplace approximation of the layer called `head`."""
    seen = observe(model, train, name="train")
    assert seen.features is not None
    weight, bias = model.get_parameter("head.weight"), model.get_parameter("head.bias")
    return laplace.fit(seen.features, seen.labels, (weight.detach(), bias.detach()), layer="head")


def mixture(posterior: Ensemble | Dropout, model: nn.Module, *, draws: int, logits: bool = False) -> Method:
    """The mean of the draws' probabilities, or of their `logits`; `draws` passes with dropout, all members else."""
    count = draws if isinstance(posterior, Dropout) else None

    def answer(inputs: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        found = posteriors.predict(posterior, model, inputs, generator=generator, draws=count)
        return found.mean(dim=0) if logits else log_mean(found)

    return answer


def measure(method: Method, test: tuple[Tensor, Tensor], ood: Tensor) -> dict[str, float]:
    """A method's metrics on in-distribution and OOD inputs; AUC, AUPR, FPR95 and accuracy in %, OOD = positive."""
    inputs, labels = test
    with torch.no_grad():
        inside, outside = method(inputs), method(ood)
    figures = common.detection(msp(inside), msp(outside))
    return {
        "AUC": figures["auroc"],
        "AUPR": figures["aupr_out"],
        "FPR95": figures["fpr_out"],
        "ECE, ID + OOD": common.ece_with_ood(inside, labels, outside),
        "NLL": float(proper.nll(inside, labels)),
        "accuracy": 100 * float((inside.argmax(dim=1) == labels).double().mean()),
        "ECE": float(calibration.ece(calibration.confidence_bins(inside.double().softmax(1), labels))),
    }
