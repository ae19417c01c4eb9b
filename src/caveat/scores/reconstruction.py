"""Reconstruction error: an autoencoder draws in-distribution inputs well, others not so well."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caveat.errors import ModelError
from caveat.types import Look, Reconstructing, Score

__all__ = ["Reconstruction", "choose", "error"]


def error(images: Float[Tensor, "n *pixels"], reconstructions: Float[Tensor, "n *pixels"]) -> Score:
    """Mean over pixels (and channels) of the squared difference; of inputs in [0, 1] it is in [0, 1].

    >>> error(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 1.0]])).item()
    0.125
    """
    return (reconstructions - images).square().flatten(1).mean(dim=1)


@dataclass(frozen=True)
class Reconstruction:
    """A probe whose numbers are the score itself."""

    layers: tuple[str, ...] = ()
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n 1"]:
        """One pass through the autoencoder; the logits come from the shared one."""
        return error(look.inputs, _able(look.model).reconstruct(look.inputs)).unsqueeze(1)


def choose(model: nn.Module, inputs: Tensor, labels: Tensor) -> Reconstruction:
    """The probe, if the model reconstructs; there is nothing to choose, and `inputs` only show that it works.

    For models with an autoencoder (`models.denoising_classifier`, or `models.WithAutoencoder(network, autoencoder)`).
    Costs one pass through it. Simple shapes are easy to draw: an OOD input that is simpler than the in-distribution
    ones passes, and in-distribution inputs of many strokes are rejected. Formula: |r(x) - x|^2 / pixels, with the input
    as it is, no noise added.

    Raises
    ------
    ModelError
        If the model has no `reconstruct`, or it gives another shape than the inputs'.

    Source: Y. Song, OOD in MNIST (report, Yonsei), sections 3.4 and 4.1; Sakurada and Yairi, Anomaly Detection Using
    Autoencoders with Nonlinear Dimensionality Reduction, MLSDA 2014.
    """
    del labels
    able = _able(model)
    with torch.no_grad():
        shape = able.reconstruct(inputs[:2]).shape
    if shape != inputs[:2].shape:
        raise ModelError(
            f"model: expected reconstructions of shape {tuple(inputs[:2].shape)}, as the inputs, got {tuple(shape)}"
        )
    return Reconstruction()


def _able(model: nn.Module) -> Reconstructing:
    if not isinstance(model, Reconstructing):
        raise ModelError(
            f"model: the score reconstruction needs a model with `reconstruct(inputs)`, got {type(model).__name__}; "
            "join an autoencoder to it: models.WithAutoencoder(network, autoencoder)"
        )
    return model
