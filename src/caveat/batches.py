"""Batches as people have them, brought to one form: `(inputs, labels)` of tensors, in the set's order.

Inputs are one tensor, or `Several`: what a network of two inputs, or of a tokenizer's dictionary, is called with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, default_collate

from caveat.errors import DataError

__all__ = [
    "LABEL_KEYS",
    "Data",
    "Inputs",
    "Several",
    "Target",
    "View",
    "given",
    "pair",
    "stacked",
    "versions",
    "viewed",
]

LABEL_KEYS = ("labels", "label", "y", "target", "targets")
"""Under which of these names a dictionary holds the labels; the first that is there."""
BATCH = 256
"""Samples at a time of arrays and data sets that have no batches of their own."""
NO_LABEL = -1

Target: TypeAlias = Literal["class", "number", "several", "any"]
"""What labels are: the number of a class `(n,)`, a real number `(n,)`, 0 or 1 for each of several labels `(n, c)`, or
anything, as they are not looked at."""
_WORDS: dict[Target, str] = {
    "class": "whole numbers (n,)",
    "number": "numbers (n,)",
    "several": "0 and 1 (n, c)",
    "any": "whole numbers (n,)",
}


@dataclass(frozen=True, eq=False)
class Several:
    """Tensors that a network takes together, by place or by keyword; in what is done to rows they are as one tensor."""

    parts: Mapping[str, Tensor] | tuple[Tensor, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.tensors[0])

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, in order."""
        return [*(self.parts.values() if isinstance(self.parts, Mapping) else self.parts)]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Several":
        """The same with every tensor changed."""
        if isinstance(self.parts, Mapping):
            return Several({name: change(part) for name, part in self.parts.items()})
        return Several(tuple(change(part) for part in self.parts))

    def __getitem__(self, rows: Any) -> "Several":
        """Some of the samples."""
        return self.each(lambda part: part[rows])

    def split(self, size: int) -> "list[Several]":
        """Chunks of at most `size` samples."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def clone(self) -> "Several":
        """A copy."""
        return self.each(torch.clone)

    def detach(self) -> "Several":
        """Outside of any graph."""
        return self.each(torch.detach)

    def flip(self, dim: int) -> "Several":
        """The samples in reverse order, for `dim` 0."""
        return self.each(lambda part: part.flip(dim))

    def is_floating_point(self) -> bool:
        """False: there is no one box of numbers that could be perturbed or attacked."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the first tensor is."""
        return self.tensors[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Of the first tensor."""
        return self.tensors[0].dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        """Of each tensor; for messages."""
        named = self.parts.items() if isinstance(self.parts, Mapping) else enumerate(self.parts)
        return (len(self), *(f"{name}: {tuple(part.shape[1:])}" for name, part in named))

    def call(self, model: nn.Module) -> Any:
        """What the network gives, called by keyword or by place."""
        return model(**self.parts) if isinstance(self.parts, Mapping) else model(*self.parts)


Inputs: TypeAlias = Tensor | Several
Data: TypeAlias = Iterable[Any] | Dataset[Any]
"""A set as people have it: see `viewed`."""


def stacked(samples: list[Any]) -> Inputs:
    """Samples, each a tensor or `Several`, as a batch; sequences of different length are padded with zeros."""
    if samples and isinstance(samples[0], Several):
        columns = list(zip(*(sample.tensors for sample in samples), strict=True))
        parts = [stacked(list(column)) for column in columns]
        names = samples[0].parts
        return Several(dict(zip(names, parts, strict=True)) if isinstance(names, Mapping) else tuple(parts))  # pyright: ignore[reportArgumentType]
    if len({sample.shape for sample in samples}) > 1:
        return pad_sequence(samples, batch_first=True)
    return torch.stack(samples) if samples else torch.empty(0)


def versions(inputs: Inputs) -> int | None:
    """A number that grows when a network writes into its inputs; None where torch counts nothing (inference mode)."""
    parts = inputs.tensors if isinstance(inputs, Several) else [inputs]
    if any(part.is_inference() for part in parts):
        return None
    return sum(part._version for part in parts)  # pyright: ignore[reportPrivateUsage]  # has no public name


def given(inputs: Any, name: str) -> Inputs:
    """Inputs without labels as a tensor or `Several`.

    Raises
    ------
    DataError
        If they are no tensors or arrays of numbers, or of different lengths.
    """
    if isinstance(inputs, Several):
        return inputs
    if isinstance(inputs, Mapping):
        parts = {str(key): _numbers(value) for key, value in inputs.items()}
        tensors = {key: value for key, value in parts.items() if value is not None and value.ndim}
        return _together(tensors, name) if tensors else _nothing(inputs, name)
    if isinstance(inputs, tuple | list) and inputs and not isinstance(inputs[0], int | float):
        found = [_numbers(value) for value in inputs]
        tensors = tuple(part for part in found if part is not None)
        return _together(tensors, name) if len(tensors) == len(found) else _nothing(inputs, name)
    tensor = _numbers(inputs)
    return _nothing(inputs, name) if tensor is None else tensor


def _together(parts: Mapping[str, Tensor] | tuple[Tensor, ...], name: str) -> Inputs:
    several = Several(parts)
    if len(several.tensors) == 1:
        return several.tensors[0]
    lengths = {len(part) if part.ndim else 0 for part in several.tensors}
    if len(lengths) > 1:
        raise DataError(f"{name}: expected inputs of one length, got {several.shape[1:]} of {sorted(lengths)} samples")
    return several


def _nothing(inputs: Any, name: str) -> Inputs:
    raise DataError(
        f"{name}: expected inputs as tensors or arrays of numbers, got {_kind(inputs)}; bring each batch to "
        "(inputs, labels) with unpack="
    )


def pair(batch: Any, name: str, *, target: Target = "class") -> tuple[Inputs, Tensor]:
    """Inputs and labels of one batch, whatever form it has; labels are what `target` says, -1 or NaN where it has none.

    A tensor, an array, or a list of one is inputs alone. `(inputs, labels)` may have more after the labels, which is
    not looked at; of `(a, b, labels)` the network takes both. A dictionary holds labels under one of `LABEL_KEYS`, all
    other tensors are inputs, by name.

    Raises
    ------
    DataError
        If it has none of these forms, or which part the labels are is open.
    """
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch), None)
        inputs = given({other: value for other, value in batch.items() if other != key}, name)
        return inputs, _labels(None if key is None else batch[key], inputs, name, target=target)
    if not isinstance(batch, tuple | list):
        inputs = given(batch, name)
        return inputs, _labels(None, inputs, name, target=target)
    if len(batch) == 1:
        inputs = given(batch[0], name)
        return inputs, _labels(None, inputs, name, target=target)
    if len(batch) == 2:  # the usual form
        inputs = given(batch[0], name)
        return inputs, _labels(batch[1], inputs, name, target=target)
    places = [place for place, part in enumerate(batch[1:], 1) if _is_labels(part, batch[0], target=target)]
    if target == "several" and len(places) > 1:
        raise DataError(
            f"{name}: expected batches (inputs, labels), got {len(batch)} parts of which {len(places)} could be the "
            f"labels: {', '.join(map(_kind, batch))}; bring each batch to (inputs, labels) with unpack="
        )
    place = places[0] if places else None
    if place is None:
        raise DataError(
            f"{name}: expected batches (inputs, labels), got a {type(batch).__name__} of {len(batch)} parts, none of "
            f"which is {_WORDS[target]}: {', '.join(map(_kind, batch))}; bring each batch to (inputs, labels) "
            "with unpack="
        )
    inputs = given(batch[0] if place == 1 else tuple(batch[:place]), name)
    return inputs, _labels(batch[place], inputs, name, target=target)


def _is_labels(part: Any, inputs: Any, *, target: Target) -> bool:
    tensor = _numbers(part)
    count = len(inputs) if isinstance(inputs, Tensor | np.ndarray | Sequence) else None
    if tensor is None or (count is not None and (not tensor.ndim or len(tensor) != count)):
        return False
    if target == "several":
        return tensor.ndim == 2 and _binary(tensor)
    column = tensor.ndim == 1 or (target == "number" and tensor.ndim == 2 and tensor.shape[1] == 1)
    return column and tensor.dtype != torch.bool and (target == "number" or not tensor.is_floating_point())


def _labels(labels: Any, inputs: Inputs, name: str, *, target: Target) -> Tensor:
    """Whole numbers (n,): -1 without labels; 0 and 1 as floats or booleans, in one column too, are whole numbers.

    Real ones are float64, NaN without labels; several for each input are float64 (n, c), c = 0 without labels.
    """
    if target == "any" or (labels is None and target == "class"):
        return torch.full((len(inputs),), NO_LABEL)
    if labels is None:
        return torch.full((len(inputs),) if target == "number" else (len(inputs), 0), torch.nan, dtype=torch.float64)
    tensor = _numbers(labels)
    if tensor is None:
        whole = "whole " if target == "class" else ""
        raise DataError(f"{name}: expected labels as a tensor of {whole}numbers, got {_kind(labels)}")
    if target == "several":
        return tensor.double()
    if tensor.ndim == 2 and tensor.shape[1] == 1:  # as BCEWithLogitsLoss takes them
        tensor = tensor[:, 0]
    if target == "number":
        return tensor.double()
    if tensor.dtype == torch.bool or (tensor.is_floating_point() and tensor.ndim == 1 and _binary(tensor)):
        return tensor.long()
    return tensor


def _numbers(value: Any) -> Tensor | None:
    """A tensor of what is one, or an array or a list of numbers; None of what is not."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, tuple | list) and value and all(isinstance(one, int | float) for one in value):
        return torch.tensor(value)
    return None


def _kind(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(sorted({type(one).__name__ for one in value})) or 'nothing'}"
    return type(value).__name__


class View:
    """A set gone through in the one form of batches; what else the set knows (`classes`, `take`, ...) is its own."""

    def __init__(
        self, batches: Iterable[Any], name: str, unpack: Callable[[Any], Any] | None = None, *, target: Target = "class"
    ) -> None:
        self._batches, self._name, self._unpack = batches, name, unpack
        self._target: Target = target

    @property
    def used_up(self) -> str:
        """What it is, if it can be gone through only once; '' otherwise."""
        return type(self._batches).__name__ if isinstance(self._batches, Iterator) else ""

    @property
    def kind(self) -> str:
        """What kind of set it is, for people."""
        return type(self._batches).__name__

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for batch in self._batches:
            yield pair(batch if self._unpack is None else self._unpack(batch), self._name, target=self._target)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(self._batches, attribute)


def viewed(batches: Any, name: str, unpack: Callable[[Any], Any] | None = None, *, target: Target = "class") -> Any:
    """A set whose batches are `(inputs, labels)` of tensors: itself, arrays `(X, y)` or a `Dataset` cut into batches.

    `unpack` makes `(inputs, labels)` of a batch that has another form; `target` says what labels are.

    Raises
    ------
    DataError
        If it is nothing that can be gone through in batches.
    """
    if isinstance(batches, View):
        return batches
    if isinstance(batches, Tensor | np.ndarray | Mapping) or _is_arrays(batches, target):
        inputs, labels = pair(batches, name, target=target)
        if len(inputs) != len(labels):
            raise DataError(f"{name}: expected one label per input, got {len(inputs)} inputs and {len(labels)} labels")
        return list(zip(inputs.split(BATCH), labels.split(BATCH), strict=True))
    if isinstance(batches, Dataset):
        batches = DataLoader(batches, batch_size=BATCH, shuffle=False, collate_fn=_collated)
    if not isinstance(batches, Iterable):
        raise DataError(
            f"{name}: expected batches (inputs, labels), as a DataLoader gives them, arrays (X, y) or a Dataset, got "
            f"{type(batches).__name__}"
        )
    return View(batches, name, unpack, target=target)


def _is_arrays(batches: Any, target: Target) -> bool:
    """Whether it is arrays `(X, y)`, X of several parts too, and no two batches of inputs alone."""
    if not (isinstance(batches, tuple | list) and len(batches) == 2):
        return False
    inputs, labels = batches
    if not isinstance(labels, Tensor | np.ndarray):
        return False
    if isinstance(inputs, tuple | list | Mapping):
        return labels.ndim == (2 if target == "several" else 1)
    if not isinstance(inputs, Tensor | np.ndarray) or inputs.ndim < 2:
        return False
    # as many labels as columns of inputs: 0 and 1 are labels where labels are asked for, or the inputs are others
    looks = labels.ndim == 2 and _binary(labels) and (target == "several" or (target == "any" and not _binary(inputs)))
    return looks or inputs.shape[1:] != labels.shape[1:]


def _binary(values: Any) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _collated(samples: list[Any]) -> Any:
    """As torch collates them, with a word about what it can't put together."""
    try:
        return default_collate(samples)
    except (TypeError, RuntimeError) as error:
        raise DataError(
            f"dataset: its samples can't be put into one batch ({str(error).splitlines()[0][:200]}); give a DataLoader "
            "with the transform or the collate_fn that does it"
        ) from None
