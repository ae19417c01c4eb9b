"""The model as an attack uses it: in eval mode, untouched, one function of the input."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from caveat.attacks.losses import Loss, log_odds
from caveat.calls import as_written
from caveat.errors import DataError, ModelError
from caveat.evaluation import check
from caveat.types import Labels

__all__ = [
    "Harm",
    "answered",
    "broken",
    "check_floating",
    "check_numbers",
    "check_type",
    "checked",
    "classes_of",
    "masked",
    "others_by_logit",
]

PART = 64
"""Inputs whose gradients are taken at once."""


def checked(model: nn.Module, inputs: Tensor, labels: Tensor) -> Labels:
    """The labels as int64; refuse a model that is not in evaluation mode, and what is no inputs and labels.

    Raises
    ------
    ModelError
        As `evaluation.check`; in the midst of training, attack within `evaluation.in_eval_mode(model)`.
    DataError
        If the inputs are not floating or there is not one whole number for each.
    """
    check(model)
    both: dict[str, object] = {"inputs": inputs, "labels": labels}
    for name, given in both.items():
        if not isinstance(given, Tensor):
            raise DataError(f"{name}: expected a tensor, got {type(given).__name__}; give torch.as_tensor({name})")
    check_floating(inputs)
    check_type(model, inputs)
    if labels.shape != inputs.shape[:1] or labels.is_floating_point():
        raise DataError(f"labels: expected {len(inputs)} integers, got {labels.dtype} of shape {tuple(labels.shape)}")
    return labels.long()


def check_floating(inputs: Tensor) -> None:
    """Refuse inputs that are no numbers with numbers near to them.

    Raises
    ------
    DataError
        If they are whole numbers.
    """
    if not inputs.is_floating_point():
        raise DataError(
            f"inputs: expected floating numbers, got {inputs.dtype}: whole numbers (tokens, bytes) have no ball around "
            "them; give pictures as floats in [0, 1]"
        )


def check_type(model: nn.Module, inputs: Tensor) -> None:
    """Refuse inputs of another floating type than the model's, which torch says only in the midst of a layer.

    Raises
    ------
    DataError
        If there is one type of weights, the inputs have another one, and the model does not take them.
    """
    kinds = {value.dtype for value in model.parameters() if value.is_floating_point()}
    if len(kinds) != 1 or inputs.dtype in kinds or not len(inputs):
        return
    try:
        with as_written(model), torch.no_grad():
            model(inputs[:1].clone())  # it may cast them itself
    except RuntimeError:
        own, given = (str(kind).removeprefix("torch.") for kind in (*kinds, inputs.dtype))
        raise DataError(f"inputs: the model computes in {own}, got {given}: give inputs.to(torch.{own})") from None


def classes_of(labels: Tensor, count: int) -> Labels:
    """Labels as int64.

    Raises
    ------
    DataError
        If one is none of `count` classes.
    """
    found = labels.long()
    bad = ((found < 0) | (found >= count)).nonzero().flatten().tolist()
    if labels.is_floating_point() or bad:
        row = f"{int(found[bad[0]])} at position {bad[0]}" if bad else str(labels.dtype)
        raise DataError(f"labels: expected classes in [0, {count}), as integers, got {row}")
    return found


def answered(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits, with a clear word if they are none."""
    with as_written(model):
        logits = model(inputs.clone())  # a network may write into its inputs
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        kind = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"model: expected logits (n, c) of {len(inputs)} inputs, got {kind}")
    if logits.shape[1] < 2:
        raise ModelError(
            "model: expected logits of two classes at least, got one for each input; give "
            "caveat.models.Adapted(model, single=True), for which one logit is two classes"
        )
    return logits


def check_numbers(logits: Tensor) -> None:
    """Refuse logits that are NaN: no answer follows from them.

    Raises
    ------
    ModelError
        If some are.
    """
    if bool((bad := torch.isnan(logits).any(dim=1)).any()):
        raise ModelError(
            f"model: its logits are NaN at {int(bad.sum())} of {len(bad)} inputs, so it gives no answer there; look "
            "for NaN in its weights and in the inputs, or for an overflow in half precision"
        )


class Harm:
    """What an attack climbs: the loss of the model's logits, by sample; it remembers the logits of its last call.

    So an attack knows at no cost which of the points it looked at have another answer.
    """

    def __init__(self, model: nn.Module, labels: Tensor, loss: Loss) -> None:
        with torch.inference_mode(False):  # labels made under inference_mode cannot be part of a graph; a copy can
            self.labels = labels.clone()
        self.model, self.loss = model, loss
        self.logits = torch.zeros(len(labels), 0)
        self._fits = False

    def __call__(self, inputs: Tensor) -> Tensor:
        """The loss of each input.

        Raises
        ------
        DataError
            If a label is no class of the network.
        ModelError
            If logits are NaN at the inputs of the first call.
        """
        logits = answered(self.model, inputs)
        if not self._fits and len(self.labels):  # once: on a device every look at a value waits
            classes_of(self.labels, logits.shape[1])
            check_numbers(logits)
        self._fits, self.logits = True, logits.detach()
        return self.loss(logits, self.labels)

    def ended(self, *, targeted: bool = False) -> Bool[Tensor, " n"]:
        """Where the inputs of the last call have another answer than the label, or when targeted the label."""
        same = self.logits.argmax(1) == self.labels
        return same if targeted else ~same


def others_by_logit(model: nn.Module, inputs: Tensor, labels: Tensor) -> Int[Tensor, "n k"]:
    """The classes other than the label in the order of their logits at the input, the likeliest first."""
    if not len(inputs):
        return torch.zeros(0, 1, dtype=torch.int64, device=labels.device)
    function = Harm(model, labels, log_odds)
    with torch.no_grad():
        function(inputs)
        return function.logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[
            :, :-1
        ]


def broken(model: nn.Module, inputs: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
    """Where the attack has reached its end: another answer than the label, or when targeted the label."""
    with torch.no_grad():
        logits = answered(model, inputs)
    check_numbers(logits)
    answers = logits.argmax(1)
    return (answers == labels) if targeted else (answers != labels)


def masked(model: nn.Module, inputs: Float[Tensor, "n ..."], labels: Labels) -> Bool[Tensor, " n"]:
    """Where the gradient of the log-odds is zero or not finite: an attack that follows it stands still there.

    Costs one forward and one backward pass.

    Raises
    ------
    ModelError, DataError
        As `pgd`.
    """
    labels = checked(model, inputs, labels)
    parts: list[Tensor] = []
    with torch.inference_mode(False), torch.enable_grad():
        for part, truth in zip(inputs.detach().split(PART), labels.split(PART), strict=True):
            points = part.clone().requires_grad_()
            values = Harm(model, truth, log_odds)(points)
            connected = values.requires_grad
            gradient = torch.autograd.grad(values.sum(), points, allow_unused=True)[0] if connected else None
            if gradient is None:  # the network detaches its input
                parts.append(torch.ones(len(points), dtype=torch.bool, device=points.device))
                continue
            flat = gradient.flatten(1)
            parts.append((flat == 0).all(dim=1) | ~torch.isfinite(flat).all(dim=1))
    return torch.cat(parts) if parts else labels.bool()
