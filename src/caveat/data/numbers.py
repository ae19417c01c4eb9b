"""Sets of rows of numbers: tables, and vectors of any kind, with classes or real numbers as labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from caveat.data.source import Indices, split
from caveat.errors import DataError, OptionError

__all__ = ["GENERATED", "Numbers", "generated", "named"]

SHOWN = 5
"""Names in a message."""


@dataclass(frozen=True)
class Numbers:
    """A set of rows in a fixed order, held in memory."""

    name: str
    """As the caller wrote it; errors begin with it."""
    inputs: Float[Tensor, "n d"]
    labels: Shaped[Tensor, "n *labels"]
    """Classes (int64) or real numbers (float64), -1 where there are none; or `(n, c)`, 0 or 1 for each of c labels."""
    classes: tuple[str, ...] | None
    """Names of the labels 0, 1, ..., if they are classes with names; or of several labels."""
    columns: tuple[str, ...] | None
    """Names of the inputs, if known."""
    batch: int
    notes: tuple[str, ...] = ()
    """What a person should know of the set."""
    generated: bool = False
    """Noise and the like."""
    labelled: bool = True
    """Whether there are labels; batches are of inputs alone otherwise."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def remarks(self) -> list[str]:
        """The notes: nothing is found out in a pass."""
        return list(self.notes)

    def place(self, position: int) -> str:
        """Which row it is, for people."""
        return f"row {position}"

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[Any]:
        for chunk, inputs in self.chunks():
            yield (inputs, self.labels[chunk]) if self.labelled else inputs

    def chunks(self, spans: Sequence[range] | None = None) -> Iterator[tuple[Indices, Tensor]]:
        """Every batch of positions and inputs, or those of `spans` alone."""
        for chunk in split([range(len(self))] if spans is None else spans, self.batch):
            yield chunk, self.inputs[chunk]

    def take(self, indices: Sequence[int] | Indices) -> tuple[Tensor, Tensor]:
        """The inputs and labels at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return self.inputs[rows], self.labels[rows]

    def among(self, indices: Indices) -> "Numbers":
        """The rows at `indices`, in that order.

        Raises
        ------
        DataError
            If nothing is left.
        """
        if not len(indices):
            raise DataError(f"{self.name}: no rows are left")
        return replace(self, inputs=self.inputs[indices], labels=self.labels[indices])


def named(found: Numbers, columns: Sequence[str] | None) -> Numbers:
    """The set with its columns in this order, others left out; as it is where either has no names.

    Raises
    ------
    DataError
        If one is missing.
    """
    if columns is None or found.columns is None or tuple(columns) == found.columns:
        return found
    missing = [column for column in columns if column not in found.columns]
    if missing:
        raise DataError(
            f"{found.name}: expected the columns {_listed(columns)}; it lacks {_listed(missing)} and has "
            f"{_listed(found.columns)}"
        )
    order = torch.tensor([found.columns.index(column) for column in columns])
    return replace(found, inputs=found.inputs[:, order], columns=tuple(columns))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _permuted(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Every column in an order of its own: each looks as it did, together they do not."""
    order = torch.stack([torch.randperm(len(inputs), generator=generator) for _ in range(inputs.shape[1])], dim=1)
    return inputs.gather(0, order)


def _uniform(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in each column's range."""
    low, high = inputs.aminmax(dim=0)
    return low + (high - low) * torch.rand(inputs.shape, generator=generator)


def _normal(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Around each column's mean, with three times its standard deviation."""
    return inputs.mean(dim=0) + 3 * inputs.std(dim=0, correction=0) * torch.randn(inputs.shape, generator=generator)


GENERATED = {"permuted": _permuted, "noise:uniform": _uniform, "noise:normal": _normal}
"""OOD sets made of a table, by the name that they have for pictures too."""


def generated(written: str, like: Numbers, *, name: str, batch: int, seed: int) -> Numbers:
    """As many rows as `like` has, made of it, without labels.

    Raises
    ------
    OptionError
        If it can be made of pictures only.
    """
    if written not in GENERATED:
        raise OptionError(f"{name}: made of pictures, but {like.name} holds numbers; take {', '.join(GENERATED)}")
    state = np.random.SeedSequence([seed]).generate_state(1, np.uint64)
    made = GENERATED[written](like.inputs, torch.Generator().manual_seed(int(state[0]) >> 1))
    none = torch.full((len(made),), -1)
    return replace(like, name=name, inputs=made, labels=none, batch=batch, generated=True, labelled=False, notes=())
