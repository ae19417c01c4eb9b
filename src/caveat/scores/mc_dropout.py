"""MC dropout without a posterior: the network's own dropout stays on for some more passes, whose answers are scored."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat.calls import as_written
from caveat.errors import OptionError
from caveat.posteriors import dropout
from caveat.posteriors.predicting import predict
from caveat.types import Look

__all__ = ["DropoutProbe", "probe"]


@dataclass(frozen=True)
class DropoutProbe:
    """A probe: the logits of `draws` networks, each with masks of its own; the same for all inputs and batches."""

    draws: int
    seed: int
    layers: tuple[str, ...] = ()
    graph: bool = False

    def __call__(self, look: Look) -> Float[Tensor, "n s c"]:
        """As many passes as draws, of what comes after the first dropout."""
        with torch.no_grad(), as_written(look.model):
            return drawn(look.model, look.inputs, self.draws, self.seed).transpose(0, 1).contiguous()


def probe(model: nn.Module, inputs: Shaped[Tensor, "n ..."], *, draws: int = 20, seed: int = 0) -> DropoutProbe:
    """The probe for a network that drops something out, which is tried on the first two of `inputs`.

    Raises
    ------
    OptionError
        If `draws` is below 2: one network does not disagree with itself.
    ModelError
        If the model is in training mode, or nothing in it is dropped out.
    """
    if draws < 2:
        raise OptionError(f"draws: expected at least 2, got {draws}")
    drawn(model, inputs[:2].clone(), 2, seed)
    return DropoutProbe(draws, seed)


def drawn(model: nn.Module, inputs: Shaped[Tensor, "n ..."], draws: int, seed: int) -> Float[Tensor, "s n c"]:
    """The logits of the same networks for any inputs."""
    generator = torch.Generator().manual_seed(seed)
    return predict(dropout.of(model), model, inputs, generator=generator, draws=draws)
