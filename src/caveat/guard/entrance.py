"""Inputs as they come to a guard: which of them are of the kind that it was fitted on."""

from functools import partial

import torch
from torch import Tensor

from caveat.batches import Inputs, Several
from caveat.errors import DataError, OptionError
from caveat.inputs import OTHER_UNITS
from caveat.observations import Outputs

__all__ = ["blanked", "check_apart", "invalid_rows"]


def invalid_rows(inputs: Inputs, shape: tuple[int, ...], largest: float | None) -> Tensor:
    """Which inputs hold no numbers that a guard was fitted for: NaN, infinity, or far beyond the `largest` it has seen.

    Raises
    ------
    OptionError
        If they have another shape than `shape` (unless that is empty), or are whole numbers where floats are expected.
    """
    parts = inputs.tensors if isinstance(inputs, Several) else [inputs]
    rows = [part.flatten(1) if part.ndim > 1 else part.unsqueeze(1) for part in parts]
    invalid = torch.stack([~torch.isfinite(row).all(dim=1) for row in rows]).any(dim=0)
    if shape and tuple(inputs.shape[1:]) != shape:
        raise OptionError(f"inputs: expected shape (n, {', '.join(map(str, shape))}), got {tuple(inputs.shape)}")
    if largest is not None:
        if len(parts) > 1 or not parts[0].is_floating_point():
            raise OptionError(
                f"inputs: expected floating numbers up to about {largest:.4g}, as the guard was fitted on, got "
                f"{inputs.dtype}: for pictures in bytes inputs.float() / 255"
            )
        invalid |= parts[0].flatten(1).abs().amax(dim=1) > OTHER_UNITS * largest
    return invalid


def blanked(inputs: Inputs, rows: Tensor) -> Inputs:
    """The inputs with zeros in some rows."""
    return inputs.each(partial(_blank, rows=rows)) if isinstance(inputs, Several) else _blank(inputs, rows)


def _blank(part: Tensor, rows: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (part.ndim - 1)), torch.zeros_like(part), part)


def check_apart(held_out: Outputs, train: Outputs) -> None:
    """Refuse held-out samples that the network was trained on.

    Raises
    ------
    DataError
        If there are some.
    """
    shared = int(held_out.among(train).sum())
    if shared:
        raise DataError(
            f"held_out: {shared} of its {len(held_out)} samples are in train too: the network's errors there are too "
            "small, and more labels would be missed than promised; leave them out"
        )
