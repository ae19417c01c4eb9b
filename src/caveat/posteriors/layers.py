"""What posteriors ask of a model: its weights by name, its normalisation layers, and who feeds whom."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from caveat import evaluation
from caveat.errors import ModelError, OptionError

__all__ = [
    "batch_norms",
    "check_names",
    "fan_in",
    "fitting",
    "like",
    "needs_renewal",
    "normal",
    "of_norms",
    "parameters",
]

NORMS = (
    nn.modules.batchnorm._BatchNorm,  # pyright: ignore[reportPrivateUsage]  # the only common base
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """Every trained weight by name, detached; a weight that is shared stands once.

    Raises
    ------
    ModelError
        If there is none, or they have no shape yet.
    """
    evaluation.check_initialised(model)
    found = {name: weight.detach() for name, weight in model.named_parameters() if weight.is_floating_point()}
    if not found:
        raise ModelError(f"model: expected weights, but {type(model).__name__} has none")
    return found


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that keep running statistics of their inputs, by name."""
    kind = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]  # the only common base
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, kind) and layer.track_running_stats
    }


def of_norms(model: nn.Module) -> set[str]:
    """Names of the weights of normalisation layers."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, layer in model.named_modules()
        if isinstance(layer, NORMS)
        for name, _ in layer.named_parameters(recurse=False)
    }


def fan_in(model: nn.Module) -> dict[str, int]:
    """Number of inputs of the unit that each weight belongs to; a bias has that of its layer's weight."""
    found: dict[str, int] = {}
    for prefix, layer in model.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        matrices = [weight for weight in own.values() if weight.ndim > 1]
        inputs = matrices[0][0].numel() if matrices else 1
        for name, weight in own.items():
            found[f"{prefix}.{name}" if prefix else name] = weight[0].numel() if weight.ndim > 1 else inputs
    return found


def needs_renewal(model: nn.Module, names: set[str]) -> bool:
    """Whether a batch norm comes after the first of these weights, in the order in which layers were added."""
    seen = False
    norms = batch_norms(model)
    for prefix, layer in model.named_modules():
        if seen and prefix in norms:
            return True
        seen = seen or any(
            (f"{prefix}.{name}" if prefix else name) in names for name, _ in layer.named_parameters(recurse=False)
        )
    return False


def fitting(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drawn weights as the model holds them: in its precision, and matrices of 1x1 convolutions as those."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        name: weight.to(own[name]).view_as(own[name])
        if name in own and own[name].shape in (weight.shape, (*weight.shape, 1, 1))
        else weight
        for name, weight in weights.items()
    }


def check_names(model: nn.Module, weights: Mapping[str, Tensor], *, stacked: bool = False) -> None:
    """Refuse weights of another network.

    Raises
    ------
    OptionError
        If a name is none of the model's, or a shape differs.
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, weight in weights.items():
        shape = weight.shape[1:] if stacked else weight.shape
        if name not in own or own[name].shape != shape:
            if name not in own and name.endswith("bias") and f"{name.removesuffix('bias')}weight" in own:
                raise OptionError(
                    f"posterior: it holds {name!r}, but that layer of the model has no bias: fit it without one, as "
                    "with posteriors.laplace.fit(..., bias=False)"
                )
            if name not in own and _computed(model, name):
                raise OptionError(
                    f"posterior: it holds {name!r}, which the model computes from other weights (weight "
                    "normalisation, pruning): make it a weight of its own first, as "
                    "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.prune.remove do"
                )
            if name in own and (own[name].shape[0], shape[0]) == (1, 2):
                raise OptionError(
                    f"posterior: it holds {name!r} of two classes, but the model gives one logit for both: Laplace's "
                    "posterior needs a network that gives a logit for each"
                )
            there = tuple(own[name].shape) if name in own else "no such weight"
            raise OptionError(
                f"posterior: it holds {name!r} of shape {tuple(shape)}, the model has {there}: it belongs to another "
                "network"
            )


def _computed(model: nn.Module, name: str) -> bool:
    """Whether a layer has a tensor of this name that is no weight of it."""
    layer = dict(model.named_modules()).get(name.rpartition(".")[0])
    return isinstance(getattr(layer, name.rpartition(".")[2], None), Tensor)


def like(tracked: dict[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is tracked, where and as the weights are: a state that was read back may be elsewhere."""
    name = next(iter(tracked))
    same = tracked[name].device == weights[name].device and tracked[name].dtype == weights[name].dtype
    return tracked if same else {name: tensor.to(weights[name]) for name, tensor in tracked.items()}


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a tensor's shape and kind; drawn where the generator lives, so that every device
    gets the same ones."""
    drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device)
