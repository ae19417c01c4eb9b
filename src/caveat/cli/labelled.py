"""What `caveat attack` and `caveat certify` are about: labelled pictures, and a network that answers them."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from caveat.cli.terminal import echo
from caveat.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caveat.data import Source

__all__ = ["opened", "part"]


def opened(
    model: str, test: str, weights: Path | None, key: str | None, normalize: str | None, *, batch: int, seed: int
) -> "tuple[Source, nn.Module]":
    """The set and the network, which takes `part`s of it; one logit is two classes, as for `caveat audit`.

    Raises
    ------
    DataError
        If the set holds no pictures, or a label is missing or no class of the network.
    ModelError, OptionError
        As `cli.model.load`; if the network gives no logits, or NaN, or ties samples together.
    """
    import torch

    from caveat import data as sources
    from caveat.attacks.network import answered, check_numbers, classes_of
    from caveat.cli import model as models
    from caveat.models import adapted
    from caveat.observations import check_repeats

    found = sources.read(test, batch=batch, seed=seed)
    if not isinstance(found, sources.Source):
        raise DataError(f"--test: {test} holds no pictures, which are what a ball in [0, 1] is of")
    if bool((found.labels < 0).any()):
        raise DataError("--test: some samples have no label, which says what a right answer is")
    network = models.load(model, weights, key=key, normalize=normalize, say=echo, warn=True)
    few = part(found, network, torch.arange(min(8, len(found))))[0]
    network = adapted(network, few, name="--test")
    with torch.no_grad():
        logits = answered(network, few)
        again = answered(network, few)
    check_numbers(logits)
    # a random network is attacked, and said to be one; on a device rounding differs from call to call
    if torch.allclose(logits, again, rtol=1e-3, atol=1e-3):
        half = few[: max(1, len(few) // 2)]
        check_repeats(lambda part: answered(network, cast("torch.Tensor", part)), half, logits[: len(half)])
    classes_of(found.labels, logits.shape[1])
    return found, network


def part(found: "Source", network: "nn.Module", rows: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Inputs, of the network's type, and labels."""
    from caveat.inputs import moved

    inputs, labels = found.take(rows)
    return moved(inputs, network), labels
