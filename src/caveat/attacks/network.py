"""The model as an attack uses it: in eval mode, untouched, one function of the input."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from caveat.attacks.losses import Loss
from caveat.errors import DataError, ModelError

__all__ = ["answered", "broken", "checked", "harm", "in_eval_mode"]


@contextmanager
def in_eval_mode(model: nn.Module) -> Generator[None]:
    """Every module in eval mode within, and in the mode it was in afterwards: for attacks in the midst of training."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def checked(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """Refuse a model in training mode, inputs that are no numbers, and labels that do not belong to them.

    Raises
    ------
    ModelError
        If any module is in training mode: dropout would make the answer random, batch normalisation would tie the
        samples together and change its statistics.
    DataError
        If the inputs are not floating or there is not one label for each.
    """
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if training:
        raise ModelError(
            f"model: expected it in eval mode, but {training[0]} is in training mode: call model.eval(), or attack "
            "within attacks.in_eval_mode(model)"
        )
    if not inputs.is_floating_point():
        raise DataError(f"inputs: expected floating numbers, got {inputs.dtype}")
    if labels.shape != inputs.shape[:1] or labels.is_floating_point():
        raise DataError(f"labels: expected {len(inputs)} integers, got {labels.dtype} of shape {tuple(labels.shape)}")


def answered(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits, with a clear word if they are none."""
    logits = model(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        kind = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"model: expected logits (n, c) of {len(inputs)} inputs, got {kind}")
    return logits


def harm(model: nn.Module, labels: Tensor, loss: Loss) -> Callable[[Tensor], Tensor]:
    """What an attack climbs: the loss of the model's logits, by sample."""
    fits = False

    def function(inputs: Tensor) -> Tensor:
        nonlocal fits
        logits = answered(model, inputs)
        if not fits:  # once: on a device every look at a value waits
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
                found = f"{int(labels.min())} to {int(labels.max())}"
                raise DataError(f"labels: expected classes in [0, {logits.shape[1]}), got {found}")
            fits = True
        return loss(logits, labels)

    return function


def broken(model: nn.Module, inputs: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
    """Where the attack has reached its end: another answer than the label, or when targeted the label."""
    with torch.no_grad():
        answers = answered(model, inputs).argmax(1)
    return (answers == labels) if targeted else (answers != labels)
