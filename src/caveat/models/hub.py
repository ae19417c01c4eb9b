"""A classifier of transformers as a plain network: pictures in [0, 1] to logits."""

from typing import Any

from torch import Tensor, nn

from caveat.errors import ModelError
from caveat.models.normalized import Normalized
from caveat.types import Logits

__all__ = ["LogitsOnly", "prepared"]


class LogitsOnly(nn.Module):
    """Calls a transformers image classifier and returns its logits alone.

    `reverse` turns the order of the channels: blue, green, red.
    """

    def __init__(self, model: nn.Module, *, reverse: bool = False) -> None:
        super().__init__()
        self.model = model
        self.reverse = reverse

    def forward(self, inputs: Tensor) -> Logits:
        """Logits `(n, c)` of pictures `(n, channels, h, w)`, as the checkpoint expects them normalised."""
        return self.model(pixel_values=inputs.flip(1) if self.reverse else inputs).logits


def prepared(model: nn.Module, processor: Any) -> nn.Module:
    """The classifier with what its image processor does to the values of a picture in front of it.

    The processor takes bytes; pictures come in [0, 1]. It multiplies by its factor of rescaling (less 1 with an
    offset), subtracts means, divides by deviations, and turns the order of channels, each only where it says so. Sizes
    are a matter of the data.

    Raises
    ------
    ModelError
        If it both normalises and turns channels, of which the order is not said.
    """

    def does(name: str) -> bool:
        return bool(getattr(processor, name, False))

    scale = 255 * (processor.rescale_factor if does("do_rescale") else 1)
    offset = 1 if does("do_rescale") and does("rescale_offset") else 0
    normalised = does("do_normalize")
    if normalised and does("do_flip_channel_order"):
        raise ModelError(
            "--model: its image processor normalises and turns the order of channels; which comes first is not known: "
            "give the network from code, with both in its forward"
        )
    means, stds = (processor.image_mean, processor.image_std) if normalised else (0.0, 1.0)
    means, stds = ([value] if isinstance(value, int | float) else list(value) for value in (means, stds))
    network = LogitsOnly(model, reverse=does("do_flip_channel_order"))
    return Normalized(network, [(mean + offset) / scale for mean in means], [std / scale for std in stds])
