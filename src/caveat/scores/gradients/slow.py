"""Per-sample gradients of any parameter, by a backward pass for every sample."""

import warnings
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, vmap

from caveat import evaluation
from caveat.batches import Inputs, Several
from caveat.calls import with_weights

__all__ = ["gradients"]


def gradients(
    model: nn.Module, names: Sequence[str], inputs: Inputs, weights: Float[Tensor, "n c"], *, budget: int
) -> Iterator[dict[str, Tensor]]:
    """Gradients of `weights` . logits, chunk by chunk: for every named parameter `(m, ...)`.

    `torch.func.vmap(grad(...))`; a model that it does not go through is run sample by sample.
    """
    own = dict(model.named_parameters())
    chosen = {name: own[name].detach() for name in names}

    def directed(parameters: dict[str, Tensor], sample: Sequence[Tensor], direction: Tensor) -> Tensor:
        parts = iter([part.unsqueeze(0).clone() for part in sample])  # a network may write into its inputs
        alone = inputs.each(lambda _: next(parts)) if isinstance(inputs, Several) else next(parts)
        return (with_weights(model, parameters, alone).squeeze(0) * direction).sum()

    def one_by_one(parameters: dict[str, Tensor], samples: Sequence[Tensor], directions: Tensor) -> dict[str, Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        rows: list[tuple[Tensor, ...]] = []
        for *sample, direction in zip(*samples, directions, strict=True):
            with evaluation.with_gradients():
                value = directed(leaves, sample, direction)
            if not value.requires_grad:  # nothing of it depends on these parameters
                rows.append(tuple(torch.zeros_like(leaf) for leaf in leaves.values()))
                continue
            rows.append(torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True))
        return {name: torch.stack(found) for name, found in zip(leaves, zip(*rows, strict=True), strict=True)}

    batched = vmap(grad(directed), in_dims=(None, 0, 0))
    size = sum(value.numel() * value.element_size() for value in chosen.values())
    step = max(1, budget // max(size, 1))
    parts = [part.detach() for part in (inputs.tensors if isinstance(inputs, Several) else [inputs])]
    for *samples, directions in zip(*(part.split(step) for part in parts), weights.split(step), strict=True):
        try:
            with warnings.catch_warnings():  # ours has said already that this is slow
                warnings.filterwarnings("ignore", message="There is a performance drop")
                found = batched(chosen, samples, directions)
        except (RuntimeError, ValueError, NotImplementedError):
            found = one_by_one(chosen, samples, directions)
        yield {name: value.detach() for name, value in found.items()}
