"""One set into two, with the same share of every class."""

import numpy as np
import torch

from caveat.data.source import Indices
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["stratified"]


def stratified(labels: Labels, test: int, *, seed: int = 0) -> dict[str, Indices]:
    """Positions of a `train` and a `test` part, each ascending; `test` samples in the latter.

    Every class gives its share, rounded down; the classes with the largest remainders give one more.

    Raises
    ------
    OptionError
        If `test` is not in 1..n-1.

    Example
    -------
    >>> parts = stratified(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 2)
    >>> len(parts["train"]), len(parts["test"]), int((parts["test"] < 4).sum())
    (6, 2, 1)
    """
    n = len(labels)
    if not 1 <= test < n:
        raise OptionError(f"test: expected 1..{n - 1} of {n} samples, got {test}")
    random = np.random.default_rng(seed)
    classes, counts = np.unique(labels.numpy(), return_counts=True)
    wanted = counts * test / n
    quota = np.floor(wanted).astype(int)
    quota[np.argsort(quota - wanted, kind="stable")[: test - quota.sum()]] += 1
    chosen = np.zeros(n, dtype=bool)
    for label, count in zip(classes, quota, strict=True):
        chosen[random.permutation(np.flatnonzero(labels.numpy() == label))[:count]] = True
    return {"train": torch.from_numpy(np.flatnonzero(~chosen)), "test": torch.from_numpy(np.flatnonzero(chosen))}
