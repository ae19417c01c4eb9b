"""Networks whose gradient says nothing: noticed, and attacked without it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from caveat import evaluation
from caveat.attacks.ball import Ball
from caveat.attacks.estimated import estimated
from caveat.attacks.network import broken
from caveat.attacks.pgd import pgd
from caveat.types import Labels

__all__ = ["StraightThrough", "without_gradient"]

STEPS_OF = {
    torch.round, torch.floor, torch.ceil, torch.trunc, torch.fix, torch.Tensor.round, torch.Tensor.floor,
    torch.Tensor.ceil, torch.Tensor.trunc, torch.Tensor.fix,
}  # fmt: skip
"""Functions that are flat between their jumps and follow their input on the whole."""
IN_PLACE = {
    torch.Tensor.round_: torch.round, torch.Tensor.floor_: torch.floor, torch.Tensor.ceil_: torch.ceil,
    torch.Tensor.trunc_: torch.trunc, torch.Tensor.fix_: torch.trunc,
}  # fmt: skip
CONVERSIONS = {
    torch.Tensor.int, torch.Tensor.long, torch.Tensor.byte, torch.Tensor.short, torch.Tensor.char, torch.Tensor.to,
    torch.Tensor.type,
}  # fmt: skip


class StraightThrough(nn.Module):
    """The same network with the gradient of rounding replaced by 1; its values are the same up to float rounding.

    Rounding anywhere in the forward pass, in layers and in functional code: round, floor, ceil, trunc, and conversion
    to integers. Formula: f(x) = x + (round(x) - x), the bracket a constant. Source: Athalye, Carlini and Wagner,
    Obfuscated Gradients Give a False Sense of Security, ICML 2018 (arXiv 1802.00420), section 4 (BPDA).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        evaluation.without_mode(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's logits."""
        with _Through():
            return self.model(inputs)


class _Through(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        kwargs = kwargs or {}
        first = args[0] if args else None
        if not isinstance(first, Tensor) or not first.is_floating_point() or not first.requires_grad:
            return func(*args, **kwargs)
        if func in IN_PLACE:
            return first.add_(IN_PLACE[func](first.detach()) - first.detach())
        found = func(*args, **kwargs)
        whole = func in CONVERSIONS and isinstance(found, Tensor) and not found.is_floating_point()
        if func in STEPS_OF or (whole and found.dtype != torch.bool):
            return first + (found.detach().to(first.dtype) - first.detach())
        return found


def without_gradient(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Labels,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 20,
) -> Float[Tensor, "n ..."]:
    """Attack where the gradient is masked: PGD through rounding first, then, where that fails, with estimates."""
    try:
        found = pgd(StraightThrough(model), inputs, labels, ball, generator=generator, steps=steps)
    except Exception:  # a network that needs whole numbers (as an index, say) has no way through
        found = inputs.clone()
    left = (~broken(model, found, labels, targeted=False)).nonzero().squeeze(1)
    if len(left):
        found[left] = estimated(model, inputs[left], labels[left], ball, generator=generator, steps=steps)
    return found
