"""A network in the wrapper that its weights were saved with."""

from collections.abc import Mapping

from torch import Tensor, nn

from caveat.models import normalized, standardized

__all__ = ["restored"]


def restored(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """`model`, in a `Normalized` or a `Standardized` with the numbers of `state` where that was saved from one."""
    return standardized.restored(normalized.restored(model, state), state)
