"""Published experiments, reproduced: each file is one, and prints the published figures beside ours."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from caveat.records.findings import Findings, Scale

__all__ = ["STUDIES", "Study", "study"]


@runtime_checkable
class Study(Protocol):
    """What a study's `run` is."""

    def __call__(self, folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
        """Train what is needed (kept in `folder`, so that a stopped study goes on), measure, compare."""
        ...


STUDIES: dict[str, str] = {
    "adversarial-mnist": "adversarial_mnist",
    "denoising-mnist": "denoising_mnist",
    "gradient-uncertainty": "gradient_uncertainty",
    "relu-overconfidence": "relu_overconfidence",
    "tradi-camvid": "tradi_camvid",
    "tradi-cifar": "tradi_cifar",
    "tradi-mnist": "tradi_mnist",
    "tradi-uci": "tradi_uci",
    "two-uncertainties": "two_uncertainties",
}
"""Name of a study and its module in this package; imported when it is run."""


def study(name: str) -> Study:
    """The study of that name.

    Raises
    ------
    KeyError
        If there is none.
    """
    return import_module(f"caveat.studies.{STUDIES[name]}").run
