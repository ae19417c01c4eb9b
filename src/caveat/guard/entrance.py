"""Inputs as they come to a guard: which of them are of the kind that it was fitted on."""

from functools import partial
from typing import Any, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn

from caveat import devices, evaluation
from caveat.batches import Inputs, Several, given
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import OTHER_UNITS, moved
from caveat.observations import Outputs, outputs_of

__all__ = ["Known", "blanked", "check_apart", "check_not_traced", "invalid_rows", "outputs"]

COUNTED = 2
"""Of inputs in [0, 1], a row of whole numbers that reaches this holds grey values as they are counted."""


@runtime_checkable
class Known(Protocol):
    """What a decision knows of the inputs that it was fitted on."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input; empty where it varies."""
        ...

    @property
    def largest(self) -> float | None:
        """The largest number among them; None of whole numbers."""
        ...

    @property
    def dtype(self) -> str:
        """In which the network runs."""
        ...


def outputs(model: nn.Module, made: Known, inputs: Any) -> tuple[Tensor, Tensor]:
    """What a network gives for inputs, `(s, n, k)` on the CPU, and which of them it could not look at.

    What can't be looked at is replaced, so that the others are answered.

    Raises
    ------
    ModelError
        If the model is in training mode, gives NaN or infinity, or is being traced.
    OptionError
        As `invalid_rows`.
    """
    check_not_traced()
    evaluation.check(model)
    known = given(inputs, "inputs")
    invalid = invalid_rows(known, made.shape, made.largest)
    with devices.running(model, dtype=made.dtype):
        return outputs_of(model, moved(blanked(known, invalid), model), "inputs"), invalid.cpu()


def check_not_traced() -> None:
    """Refuse to be part of a graph.

    Raises
    ------
    ModelError
        If torch exports or traces what calls this.
    """
    exported = torch.compiler.is_exporting()
    if exported or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]  # documented
        raise ModelError(
            "model: a guard answers with a Verdict, which no exported or traced graph can hold: "
            "guard.export('guard.onnx') writes network, calibration, score and threshold as one graph of tensors"
        )


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
                "whole numbers; divide pictures in bytes by 255 (in PyTorch, inputs.float() / 255)"
            )
        values = parts[0].flatten(1)
        most = values.abs().amax(dim=1)
        invalid |= most > OTHER_UNITS * largest
        if largest <= 1:  # grey values as they are counted, in floats, up to 49: 0, 5, 16
            invalid |= (most >= COUNTED) & (values == values.round()).all(dim=1)
    return invalid


@overload
def blanked(inputs: Tensor, rows: Tensor) -> Tensor: ...
@overload
def blanked(inputs: Inputs, rows: Tensor) -> Inputs: ...
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
