"""Tables of numbers with a real label: the UCI regression sets, in the splits everybody uses."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from caveat.data.named import under_root
from caveat.errors import DataError, OptionError
from caveat.tensors import read_npz

__all__ = ["UCI", "Rows", "Split", "Table", "open_table", "open_uci"]

UCI = {
    "boston": "bostonHousing",
    "concrete": "concrete",
    "energy": "energy",
    "kin8nm": "kin8nm",
    "naval": "naval-propulsion-plant",
    "power": "power-plant",
    "protein": "protein-tertiary-structure",
    "wine": "wine-quality-red",
    "yacht": "yacht",
}
"""Short name and file."""


@dataclass(frozen=True)
class Rows:
    """Rows in a new order every pass: batches for training."""

    inputs: Float[Tensor, "n d"]
    labels: Shaped[Tensor, " n"]
    """Real, or whole for classes."""
    batch: int
    generator: torch.Generator

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.labels), generator=self.generator)
        for chunk in order.split(self.batch):
            yield self.inputs[chunk], self.labels[chunk]


@dataclass(frozen=True)
class Split:
    """Training and test part, float32; inputs and training labels standardised by the training part."""

    inputs: Float[Tensor, "n d"]
    labels: Float[Tensor, " n"]
    """Standardised: mean 0, deviation 1."""
    test_inputs: Float[Tensor, "m d"]
    test_labels: Float[Tensor, " m"]
    """In their own units."""
    centre: float
    scale: float
    """Of the labels: own units = centre + scale * standardised; a variance is scaled by its square."""

    def batches(self, *, batch: int, generator: torch.Generator) -> Rows:
        """The training part, for `training.fit`."""
        if batch < 1:
            raise OptionError(f"batch: expected at least 1, got {batch}")
        return Rows(self.inputs, self.labels, batch, generator)


@dataclass(frozen=True)
class Table:
    """A regression set and its published splits."""

    name: str
    inputs: Float[Tensor, "n d"]
    labels: Float[Tensor, " n"]
    tests: Int[Tensor, "k m"]
    """Rows of each split's test part."""

    def split(self, number: int) -> Split:
        """Split `number`, from 0; columns that do not vary in the training part are only centred.

        Raises
        ------
        OptionError
            If there is no such split.
        """
        if not 0 <= number < len(self.tests):
            raise OptionError(f"{self.name}: expected a split in 0..{len(self.tests) - 1}, got {number}")
        test = torch.zeros(len(self.labels), dtype=torch.bool)
        test[self.tests[number]] = True
        inputs, labels = self.inputs[~test], self.labels[~test]
        mean, deviation = inputs.mean(0), inputs.std(0, correction=0)
        # a constant column may have a deviation of rounding's size
        deviation = torch.where(deviation > 1e-9 * mean.abs().clamp_min(1e-300), deviation, torch.ones_like(deviation))
        centre, scale = float(labels.mean()), float(labels.std(correction=0)) or 1.0
        return Split(
            ((inputs - mean) / deviation).float(),
            ((labels - centre) / scale).float(),
            ((self.inputs[test] - mean) / deviation).float(),
            self.labels[test].float(),
            centre,
            scale,
        )


def open_uci(name: str, *, root: Path | None = None) -> Table:
    """One of the nine sets of the usual table, from `uci/` under CAVEAT_DATA or from the folder `root`.

    Source of the protocol: Hernández-Lobato and Adams, Probabilistic backpropagation, ICML 2015; 20 random splits of
    90 % and 10 % (5 for protein).

    Raises
    ------
    OptionError
        If there is no such set.
    DataError
        If it is not there, or broken.
    """
    if name not in UCI:
        raise OptionError(f"name: there is no UCI set {name!r}; expected one of {', '.join(UCI)}")
    folder = root or under_root("uci")
    path = folder / f"{UCI[name]}.npz" if folder else None
    if path is None or not path.is_file():
        where = path or f"uci/{UCI[name]}.npz under CAVEAT_DATA, which is not set"
        raise DataError(f"{name}: not found: {where}; expected an npz of X (n, d), y (n,) and test_index (splits, m)")
    return open_table(path, name=name)


def open_table(path: Path, *, name: str | None = None) -> Table:
    """A NumPy archive of `X` (n, d), `y` (n,) and `test_index` (splits, m).

    Raises
    ------
    DataError
        If the file is broken, lacks an array, or its arrays do not fit together.
    """
    name = name or path.stem
    found, _ = read_npz(path, name=name, keys=("X", "y", "test_index"))
    if missing := {"X", "y", "test_index"} - set(found):
        raise DataError(f"{name}: expected arrays X, y and test_index in {path}, {sorted(missing)} is missing")
    inputs, labels, tests = (torch.from_numpy(found[key]) for key in ("X", "y", "test_index"))
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or tests.ndim != 2:
        shapes = tuple(inputs.shape), tuple(labels.shape), tuple(tests.shape)
        raise DataError(f"{name}: expected X (n, d), y (n,) and test_index (splits, m), got shapes {shapes}")
    if not bool(torch.isfinite(inputs).all() and torch.isfinite(labels).all()):
        raise DataError(f"{name}: expected finite numbers, got NaN or infinity in X or y")
    if not tests.numel() or int(tests.min()) < 0 or int(tests.max()) >= len(labels):
        raise DataError(f"{name}: test_index must name rows 0..{len(labels) - 1}")
    return Table(name, inputs.double(), labels.double(), tests.long())
