"""Sets of texts: with labels as they are written, and as the inputs that a network makes of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, overload

import torch

from caveat.batches import NO_LABEL, Inputs, given
from caveat.data.numbers import Numbers
from caveat.data.source import Indices, Source, split
from caveat.data.streamed import Streamed
from caveat.errors import DataError
from caveat.types import Encoding, Labels

__all__ = ["Encoded", "Texts", "bound", "encoding", "renumbered"]


@dataclass(frozen=True)
class Texts:
    """A set of texts in a fixed order, held in memory. Texts of no known class have the label -1."""

    name: str
    """As the caller wrote it; errors begin with it."""
    texts: tuple[str, ...]
    labels: Labels
    classes: tuple[str, ...] | None
    """Names of the labels 0, 1, ..., if known."""
    batch: int
    notes: tuple[str, ...] = ()
    """What a person should know of the set."""

    def __len__(self) -> int:
        return len(self.texts)

    def among(self, indices: Indices) -> "Texts":
        """The texts at `indices`, in that order.

        Raises
        ------
        DataError
            If nothing is left.
        """
        if not len(indices):
            raise DataError(f"{self.name}: no texts are left")
        rows: list[int] = indices.tolist()
        return replace(self, texts=tuple(self.texts[row] for row in rows), labels=self.labels[indices])


@dataclass(frozen=True)
class Encoded:
    """A set of texts as the inputs of a network, made batch by batch."""

    texts: Texts
    model: Encoding

    @property
    def name(self) -> str:
        """As the caller wrote it."""
        return self.texts.name

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels 0, 1, ..., if known."""
        return self.texts.classes

    @property
    def labels(self) -> Labels:
        """Of every text."""
        return self.texts.labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: empty, as it varies."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the set."""
        return self.texts.notes

    @property
    def remarks(self) -> list[str]:
        """The same: nothing is found out in a pass."""
        return list(self.notes)

    def place(self, position: int) -> str:
        """Which text it is, for people: itself."""
        return self.texts.texts[position]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[tuple[Inputs, Labels]]:
        for chunk, inputs in self.chunks():
            yield inputs, self.labels[chunk]

    def chunks(self, spans: Sequence[range] | None = None) -> Iterator[tuple[Indices, Inputs]]:
        """Every batch of positions and inputs, or those of `spans` alone."""
        for chunk in split([range(len(self))] if spans is None else spans, self.texts.batch):
            yield chunk, self.take(chunk)[0]

    def take(self, indices: Sequence[int] | Indices) -> tuple[Inputs, Labels]:
        """The inputs and labels at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        texts = [self.texts.texts[row] for row in rows.tolist()]
        return given(self.model.encode(texts), self.name), self.labels[rows]


Set = TypeVar("Set", Source, Numbers)


@overload
def bound(found: Set, model: object) -> Set: ...
@overload
def bound(found: Source | Texts | Numbers, model: object) -> Source | Encoded | Numbers: ...
def bound(found: Source | Texts | Numbers, model: object) -> Source | Encoded | Numbers:
    """A set as the inputs of a network: pictures and numbers as they are, texts as its `encode` makes them.

    Raises
    ------
    DataError
        If the set holds texts and the network takes none, or the other way round.
    """
    if isinstance(found, Texts):
        coder = encoding(found.name, model)
        return Encoded(renumbered(found, getattr(model, "classes", None)), coder)
    if isinstance(model, Encoding):
        what = "pictures" if isinstance(found, Source) else "numbers"
        raise DataError(
            f"{found.name}: holds {what}, but the network takes texts: it has a method encode(texts); give a set of "
            "texts, such as clinc150:test or csv:FILE with a column text"
        )
    return found


def encoding(name: str, model: object) -> Encoding:
    """The network, as what makes inputs of texts; `name` is that of the set.

    Raises
    ------
    DataError
        If it takes none.
    """
    if model is None:
        raise DataError(f"{name}: holds texts, the guard was fitted on numbers")
    if not isinstance(model, Encoding):
        raise DataError(
            f"{name}: holds texts, but the network has no method encode(texts), which makes its inputs of a "
            "list of texts; give it one, or take caveat.models:text_classifier or an hf: classifier of texts"
        )
    return model


Labelled = TypeVar("Labelled", Texts, Streamed)


def renumbered(found: Labelled, names: object) -> Labelled:
    """The set with its labels numbered as the network's `classes` are, where both have names.

    Raises
    ------
    DataError
        If only some of the set's classes are the network's.
    """
    if found.classes is None or not isinstance(names, tuple | list):
        return found
    order = {str(each): position for position, each in enumerate(names)}
    foreign = [each for each in found.classes if each not in order]
    if len(foreign) == len(found.classes):
        return found  # names of no class at all, such as LABEL_0, say nothing
    if foreign:
        raise DataError(
            f"{found.name}: its classes are not those of the network, which has no {foreign[0]!r}; it has "
            f"{', '.join(list(order)[:8])}{', ...' if len(order) > 8 else ''}"
        )
    numbers = torch.tensor([*(order[each] for each in found.classes), NO_LABEL])  # the last is where -1 points
    return replace(found, labels=numbers[found.labels], classes=tuple(order))
