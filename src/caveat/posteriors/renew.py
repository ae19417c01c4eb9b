"""Batch-norm statistics that belong to other weights: gathered anew."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from caveat.batches import Inputs, Several
from caveat.calls import with_weights
from caveat.errors import OptionError
from caveat.evaluation import modes_restored
from caveat.posteriors.layers import batch_norms

__all__ = ["statistics"]


def statistics(
    model: nn.Module, weights: Mapping[str, Tensor], batches: Iterable[tuple[Inputs, Tensor]]
) -> dict[str, Tensor]:
    """Running means and variances of the model with these weights: the averages over all batches.

    Only batch norm is put in training mode; dropout stays off. The model itself is left as it was. Empty if the model
    has no batch norm.

    Raises
    ------
    OptionError
        If there are no batches.
    """
    norms: dict[str, Any] = dict(batch_norms(model))
    if not norms:
        return {}
    buffers = {
        f"{prefix}.{name}" if prefix else name: _fresh(name, buffer)
        for prefix, layer in norms.items()
        for name, buffer in layer.named_buffers(recurse=False)
    }
    before = [(layer, layer.momentum) for layer in norms.values()]
    anchor = next(iter(weights.values()))
    count = 0

    def like(part: Tensor) -> Tensor:
        return part.to(anchor.device, anchor.dtype if part.is_floating_point() else None)

    try:
        with modes_restored(model), torch.no_grad():
            for layer in norms.values():
                layer.training = True
                layer.momentum = None  # the plain average over batches
            for inputs, _ in batches:
                there = inputs.each(like) if isinstance(inputs, Several) else like(inputs)
                with_weights(model, {**weights, **buffers}, there)
                count += 1
    finally:
        for layer, momentum in before:
            layer.momentum = momentum
    if not count:
        raise OptionError("batches: expected at least one batch to renew batch-norm statistics, got none")
    return buffers


def _fresh(name: str, buffer: Tensor) -> Tensor:
    return torch.ones_like(buffer) if name == "running_var" else torch.zeros_like(buffer)
