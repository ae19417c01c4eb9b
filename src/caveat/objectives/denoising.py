"""Classifier and denoising autoencoder trained together, with the losses of the report on OOD digits."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from caveat.data.outliers import occluded
from caveat.errors import ModelError, OptionError
from caveat.objectives._ranges import at_least
from caveat.objectives.reversed_focal import of_logits
from caveat.types import Labels, Reconstructing

__all__ = ["Denoising", "Joint", "noised"]


@runtime_checkable
class Joint(Reconstructing, Protocol):
    """A model that classifies and reconstructs in one pass, as `models.denoising_classifier` and `WithAutoencoder`."""

    def both(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and reconstructions."""
        ...


@dataclass(frozen=True)
class Denoising:
    """`reconstruction` times the denoising error, plus the reversed focal loss with the spread of wrong answers.

    Costs one forward and backward pass through classifier and decoder. Formula:
    mean [w |r(z) - x|^2 / pixels - log p_y - k sum_{i != y} p_i log(1 - p_i) + spread 1[y != argmax p] std_i(p)], where
    z is x under a black square of random place and Gaussian noise, and p the answer on z. With all three weights 0 it
    is cross-entropy.

    The source does not say which inputs are classified. Here the noised ones: its figure 2 has one network with one
    input, and on clean digits hardly an answer is wrong, so that there would be nothing for the spread to even out.
    `clean` classifies the clean ones instead, for a second pass through the encoder. With `reconstruction` 0 nothing is
    noised, and the model needs no autoencoder.

    Parameters
    ----------
    sigma
        Standard deviation of the noise, of inputs in [0, 1].
    sides
        Smallest and largest side of the square, in pixels; the defaults are for 28x28.

    Raises
    ------
    OptionError
        If a number is out of range.
    ModelError
        If the model reconstructs nothing.

    Source: Y. Song, OOD in MNIST (report, Yonsei), equations 2, 3 and 4 (signs mended, see `ReversedFocal`) and
    section 3.2: squares of 10 to 14 pixels; it gives neither the noise's size nor the square's value.
    """

    reconstruction: int | float = 1.0
    k: int | float = 1.0
    spread: int | float = 1.0
    sigma: int | float = 0.3
    sides: tuple[int, int] = (10, 14)
    clean: bool = False

    def __post_init__(self) -> None:
        at_least("reconstruction", self.reconstruction, 0)
        at_least("k", self.k, 0)
        at_least("spread", self.spread, 0)
        at_least("sigma", self.sigma, 0)
        if not 1 <= self.sides[0] <= self.sides[1]:
            raise OptionError(f"sides: expected 1 <= smallest <= largest, got {self.sides}")

    def __call__(
        self, model: nn.Module, inputs: Shaped[Tensor, "n *input"], labels: Labels, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The value to minimise; inputs are pictures in [0, 1]."""
        if not self.reconstruction:
            return of_logits(model(inputs), labels, k=self.k, spread=self.spread)
        if not isinstance(model, Joint):
            raise ModelError(
                "model: expected one that reconstructs too, as models.denoising_classifier or "
                f"models.WithAutoencoder(network, autoencoder), got {type(model).__name__} without `both`"
            )
        start = noised(inputs, generator, sigma=self.sigma, sides=self.sides)
        if self.clean:
            logits, images = model(inputs), model.reconstruct(start)
        else:
            logits, images = model.both(start)
        if images.shape != inputs.shape:
            raise ModelError(
                f"model: expected reconstructions of shape {tuple(inputs.shape)}, got {tuple(images.shape)}"
            )
        error = functional.mse_loss(images, inputs)
        return self.reconstruction * error + of_logits(logits, labels, k=self.k, spread=self.spread)


def noised(
    images: Float[Tensor, "n ch h w"],
    generator: torch.Generator,
    *,
    sigma: int | float = 0.3,
    sides: tuple[int, int] = (10, 14),
) -> Float[Tensor, "n ch h w"]:
    """Pictures under a black square each and Gaussian noise, clipped to [0, 1].

    The noise lies over the square too: nothing but the digit's shape tells that something is missing.
    """
    hidden = occluded(images, generator, sides=sides)
    noise = torch.randn(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    return (hidden + sigma * noise.to(images.device)).clamp(0, 1)
