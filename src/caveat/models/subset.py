"""A network of many classes used for a few of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from caveat.errors import OptionError, known_name
from caveat.models.adapter import Adapted
from caveat.types import Drawing

__all__ = ["chosen", "class_names_of"]

FEWEST = 2


def class_names_of(model: nn.Module) -> tuple[str, ...] | None:
    """Names of a network's outputs, as it or a part of it has them: `classes`, or `config.id2label` of transformers."""
    for layer in model.modules():
        names: Any = getattr(layer, "classes", None)
        if isinstance(names, tuple | list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        labels: Any = getattr(getattr(layer, "config", None), "id2label", None)
        if isinstance(labels, Mapping) and labels:
            ordered: dict[int, str] = {int(number): str(name) for number, name in labels.items()}
            return tuple(ordered[number] for number in sorted(ordered))
    return None


def chosen(
    model: nn.Module, classes: Sequence[str | int], of_set: Sequence[str] | None
) -> tuple[nn.Module, tuple[int, ...]]:
    """`model` with the logits of these classes alone, in the order of a set's classes, and their outputs' numbers.

    Its probabilities are then those given that the answer is one of the classes.

    Parameters
    ----------
    classes
        Names or numbers of outputs, two at least.
    of_set
        Names of the set's labels 0, 1, ..., if it has them; then they must be the same names, where both are known.

    Raises
    ------
    OptionError
        If a name or number is none of the network's, there are too few or two alike, they are not the set's, or the
        network is a posterior.
    """
    if isinstance(model, Drawing):
        raise OptionError("classes: expected one network, got a posterior; choose the classes of its network instead")
    names = class_names_of(model)
    numbers = [_number(one, names) for one in classes]
    if len(numbers) < FEWEST or len(set(numbers)) < len(numbers):
        raise OptionError(
            f"classes: expected at least two different ones, got {', '.join(map(str, classes)) or 'none'}"
        )
    if of_set is not None and names is not None:
        numbers = _in_order([names[number] for number in numbers], numbers, of_set)
    elif of_set is not None and len(of_set) != len(numbers):
        raise OptionError(f"classes: expected as many as the set has, {', '.join(of_set)}, got {len(numbers)}")
    output, single = (model.output, model.single) if isinstance(model, Adapted) else (None, False)
    inner = model.model if isinstance(model, Adapted) else model
    return Adapted(inner, output=output, single=single, columns=tuple(numbers)), tuple(numbers)


def _number(one: str | int, names: tuple[str, ...] | None) -> int:
    if isinstance(one, int) or one.isdecimal():
        if names is not None and int(one) >= len(names):
            raise OptionError(f"classes: expected outputs from 0 to {len(names) - 1}, got {one}")
        return int(one)
    if names is None:
        raise OptionError(
            f"classes: the network does not name its outputs, so {one!r} cannot be found; give their numbers, from 0"
        )
    return names.index(known_name("classes", one, names))


def _in_order(given: list[str], numbers: list[int], of_set: Sequence[str]) -> list[int]:
    """The outputs' numbers in the order of the set's classes, which have the same names."""
    if set(given) != set(of_set):
        raise OptionError(
            f"classes: they are {', '.join(given)}, but those of the set are {', '.join(of_set)}: labels would mean "
            "other classes; give the same, by name"
        )
    return [numbers[given.index(name)] for name in of_set]
