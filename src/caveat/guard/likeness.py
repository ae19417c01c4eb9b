"""Whether a network computes what the guard's own does: weights that fit it are not enough."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from caveat import evaluation
from caveat.errors import ModelError
from caveat.inputs import moved
from caveat.records.base import Part

__all__ = ["Answers", "answers", "check"]

COUNT, KEPT = 4, 64
"""Inputs that are generated, and numbers of their outputs that are kept."""
SLACK = 0.02
"""Share of the largest output that devices and precisions may differ by; another activation moves far more."""


class Answers(Part):
    """What a network gave for generated inputs: no input of the user's is kept."""

    shape: list[int]
    largest: float
    values: list[float]


def answers(model: nn.Module, shape: Sequence[int], largest: float | None) -> Answers | None:
    """What `model` gives for inputs of this shape, uniform up to `largest`; None where such inputs can't be generated
    (whole numbers, several inputs) or it fails on them.
    """
    if largest is None or not shape:
        return None
    drawn = torch.rand(COUNT, *shape, generator=torch.Generator().manual_seed(0)) * largest
    inputs = moved(drawn, model)
    try:
        with evaluation.without_gradients(), torch.autocast(inputs.device.type, enabled=False):
            values = _numbers(model(inputs))
    except Exception:  # it takes other inputs than noise, and says so in words of its own
        return None
    return Answers(shape=list(shape), largest=largest, values=values) if values else None


def check(model: nn.Module, kept: Answers | None, made_for: str = "") -> None:
    """Refuse a network whose outputs for the generated inputs are others than those that were kept.

    Raises
    ------
    ModelError
        If they are.
    """
    again = None if kept is None else answers(model, kept.shape, kept.largest)
    if kept is None or again is None:
        return
    one, other = torch.tensor(kept.values), torch.tensor(again.values)
    apart = float((one - other).abs().max()) if one.shape == other.shape else torch.inf
    if apart > SLACK * (1e-3 + float(one.abs().max())):
        raise ModelError(
            "model: the guard's weights fit it, but it computes something else with them: on generated inputs its "
            f"outputs differ by up to {apart:.3g} from those of the guard's network, which are at most "
            f"{float(one.abs().max()):.3g}; give the network that the guard was made for"
            + (f" ({made_for})" if made_for else "")
        )


def _numbers(outputs: Any) -> list[float]:
    """The first finite numbers of a tensor, or of the tensors that a network gives together."""
    if isinstance(outputs, Tensor):
        flat = outputs.detach().flatten()[:KEPT].float().cpu()
        return flat.tolist() if outputs.is_floating_point() and bool(torch.isfinite(flat).all()) else []
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, Sequence) else ()
    return list(chain.from_iterable(_numbers(part) for part in parts))[:KEPT]
