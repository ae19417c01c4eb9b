"""The probes of the scores that need more than logits and features, made for one model."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from caveat import heads, scores
from caveat.errors import OptionError
from caveat.observations import check_eval
from caveat.stages import activations
from caveat.types import Probe

__all__ = ["probes"]


def probes(
    names: Iterable[str], model: nn.Module, inputs: Tensor, labels: Tensor, head: heads.HeadLayer | None
) -> dict[str, Probe]:
    """Make the probes that `names` need; `inputs` and `labels` are some hundred in-distribution samples to choose
    options on.

    Raises
    ------
    OptionError
        If the model has no layers that a score needs.
    """
    check_eval(model)
    names = list(names)
    layered = scores.FROM_LAYERS | scores.FROM_MAPS
    wanted = [name for name in names if name in layered | scores.FROM_MODEL | scores.FROM_RECONSTRUCTION]
    gradients = [name for name in names if name in scores.FROM_GRADIENTS | scores.FROM_COLUMNS]
    if not wanted and not gradients:
        return {}
    anchor = next(model.parameters(), None)
    if anchor is not None:
        inputs = inputs.to(anchor.device, anchor.dtype)
    stages = activations(model, inputs[:2]) if wanted else {}
    if wanted and not stages and any(name in layered for name in wanted):
        raise OptionError(f"scores: {wanted[0]} needs layers before the logits; the model has none that give tensors")
    made: dict[str, Probe] = {"gradients": scores.gradients.probe(model, inputs[:2])} if gradients else {}
    for name in wanted:
        if name in scores.FROM_LAYERS:
            made[name] = scores.FROM_LAYERS[name][0](stages)
        elif name in scores.FROM_MAPS:
            if head is None:
                raise OptionError(f"scores: {name} needs the head of the model")
            with torch.no_grad(), heads.capture(model, head) as seen:
                model(inputs[:2])
            made[name] = scores.FROM_MAPS[name][0](stages, seen[0])
        elif name in scores.FROM_RECONSTRUCTION:
            made[name] = scores.FROM_RECONSTRUCTION[name](model, inputs, labels)
        else:
            found = scores.FROM_MODEL[name](model, inputs, labels)
            inside = bool(((inputs >= 0) & (inputs <= 1)).all())
            # inputs that are no pictures in [0, 1] have no box that a step must stay in
            made[name] = found if inside else replace(found, low=None, high=None)
    return made
