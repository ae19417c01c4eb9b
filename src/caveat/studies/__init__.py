"""Published experiments, reproduced: each package is one, and prints the published figures beside ours."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # the list of studies waits for no pydantic
    from caveat.records.findings import Findings, Scale

__all__ = ["STUDIES", "Study", "study"]


@runtime_checkable
class Study(Protocol):
    """What a study's `run` is."""

    def __call__(self, folder: Path, *, scale: "Scale", seed: int, say: Callable[[str], None]) -> "Findings":
        """Train what is needed (stored in `folder`, so that a stopped study goes on), measure, compare."""
        ...


STUDIES: dict[str, tuple[str, str]] = {
    "adversarial-mnist": (
        "adversarial_mnist",
        "Adversarial examples on MNIST: six ways of training a small network, and an MLP, under attack and certified.",
    ),
    "certified-ood-mnist": (
        "certified_ood_mnist",
        "Certified OOD detection on MNIST: plain training, outlier exposure, ACET and GOOD, attacked and guaranteed.",
    ),
    "cifar10-resnets": (
        "cifar10_resnets",
        "Four public ResNets of CIFAR-10, alone and as an ensemble of architectures; scores beside OpenOOD's table.",
    ),
    "deepg-mnist": (
        "deepg_mnist",
        "DeepG on MNIST: digits certified against rotation, translation and two compositions, beside intervals.",
    ),
    "deeppoly-eran": (
        "deeppoly_eran",
        "DeepPoly on ERAN's networks: digits that each method of bounds verifies, beside published counts and attacks.",
    ),
    "denoising-mnist": (
        "denoising_mnist",
        "Zeros as OOD inputs of a classifier of the digits 1 to 9 that is a denoising autoencoder, too.",
    ),
    "gradient-uncertainty": (
        "gradient_uncertainty",
        "Gradient uncertainty and meta classification: detecting misclassified digits and OOD inputs.",
    ),
    "neuron-coverage": (
        "neuron_coverage",
        "Neuron coverage: does it say anything of a set's error or OOD inputs that size and confidence do not?",
    ),
    "relu-overconfidence": (
        "relu_overconfidence",
        "CEDA and ACET: how confident ReLU networks are on noise, and far away from the training data.",
    ),
    "tradi-camvid": (
        "tradi_camvid",
        "TRADI on street scenes (CamVid): detecting pixels of classes that training never showed.",
    ),
    "tradi-cifar": (
        "tradi_cifar",
        "TRADI on CIFAR-10: likelihood and accuracy beside ensembles, MC dropout, SWAG and Laplace.",
    ),
    "tradi-mnist": (
        "tradi_mnist",
        "TRADI on MNIST against notMNIST, beside a deep ensemble, MC dropout, SWAG and weight noise.",
    ),
    "tradi-uci": (
        "tradi_uci",
        "TRADI on nine UCI regression sets: RMSE, NLL and the coverage of prediction intervals.",
    ),
    "two-uncertainties": (
        "two_uncertainties",
        "Aleatoric and epistemic uncertainty of six posteriors, on a noisy sine and on two classes.",
    ),
}
"""Name of a study, its package here (imported when it is run), and what it reproduces: the first line of its `run`."""


def study(name: str) -> Study:
    """The study of that name.

    Raises
    ------
    KeyError
        If there is none.
    """
    return import_module(f"caveat.studies.{STUDIES[name][0]}.run").run
