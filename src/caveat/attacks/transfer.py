"""Do the examples made on one network fool another? A matrix, source by target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from caveat.attacks.ball import Ball
from caveat.attacks.network import answered, checked
from caveat.attacks.pgd import pgd
from caveat.errors import OptionError
from caveat.types import Labels

__all__ = ["Transfer", "over_sets", "transfer"]

Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class Transfer:
    """Counts, row = network the examples were made on, column = network they are shown to."""

    names: Sequence[str]
    shown: Int[Tensor, "m m"]
    """Samples both networks answer rightly before the attack: the others say nothing about it."""
    fooled: Int[Tensor, "m m"]
    """Of these, how many the target answers wrongly after it."""
    fooled_source: Int[Tensor, "m m"]
    """How many the source itself answers wrongly after it."""
    fooled_both: Int[Tensor, "m m"]

    @property
    def success(self) -> Float[Tensor, "m m"]:
        """Share of the shown samples that fool the target, in [0, 1]; NaN if none was shown."""
        return self.fooled.double() / self.shown

    @property
    def carried(self) -> Float[Tensor, "m m"]:
        """Of the examples that fool their source, the share that fools the target too; NaN if there is none."""
        return self.fooled_both.double() / self.fooled_source


def transfer(
    models: Mapping[str, nn.Module],
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    attack: Attack = pgd,
) -> Transfer:
    """Attack every network and show the examples to every network.

    Costs one attack a network and a forward pass for each pair. `attack` is any row of `attacks.IN_BALL`, or a function
    of its signature; bind options with `functools.partial`. All networks must give the same classes.

    Raises
    ------
    OptionError
        If there is no network.
    ModelError, DataError
        As the attack does.

    Source: Papernot, McDaniel and Goodfellow, Transferability in Machine Learning, 2016 (arXiv 1605.07277).
    """
    if not models:
        raise OptionError("models: expected at least one network, got none")
    for model in models.values():
        labels = checked(model, inputs, labels)
    clean = [_right(model, inputs, labels) for model in models.values()]
    counts = torch.zeros(4, len(models), len(models), dtype=torch.int64)
    for row, source in enumerate(models.values()):
        examples = attack(source, inputs, labels, ball, generator=generator)
        wrong = [~_right(model, examples, labels) for model in models.values()]
        for column, fooled in enumerate(wrong):
            shown = clean[row] & clean[column]
            parts = (shown, shown & fooled, shown & wrong[row], shown & fooled & wrong[row])
            counts[:, row, column] = torch.stack([part.sum().cpu() for part in parts])
    return Transfer(tuple(models), *counts)


def over_sets(
    models: Mapping[str, nn.Module],
    sets: Mapping[str, tuple[Tensor, Tensor]],
    ball: Ball,
    *,
    generator: torch.Generator,
    attack: Attack = pgd,
) -> dict[str, Transfer]:
    """One matrix for each set of inputs and labels, in their order."""
    return {
        name: transfer(models, inputs, labels, ball, generator=generator, attack=attack)
        for name, (inputs, labels) in sets.items()
    }


def _right(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return answered(model, inputs).argmax(1) == labels
