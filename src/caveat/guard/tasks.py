"""What reads and writes the guards of each task."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from caveat.guard import artefact, multilabel_artefact, regression_artefact, stored
from caveat.guard.guard import Guard
from caveat.guard.multilabel import MultilabelGuard
from caveat.guard.regression import RegressionGuard
from caveat.guard.stored import Task

__all__ = ["ARTEFACTS", "AnyGuard", "artefact_of"]

AnyGuard: TypeAlias = Guard | RegressionGuard | MultilabelGuard

ARTEFACTS: Mapping[Task, ModuleType] = {
    "classification": artefact,
    "regression": regression_artefact,
    "multilabel": multilabel_artefact,
}
"""Each has `manifest`, `load` and `card`."""


def artefact_of(folder: str | Path) -> ModuleType:
    """The one that knows the guard in a folder.

    Raises
    ------
    DataError
        As `stored.task_of`.
    """
    return ARTEFACTS[stored.task_of(folder)]
