"""A classifier of transformers as a plain network: pictures to logits."""

from torch import Tensor, nn

from caveat.types import Logits

__all__ = ["LogitsOnly"]


class LogitsOnly(nn.Module):
    """Calls a transformers image classifier and returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Logits:
        """Logits `(n, c)` of pictures `(n, channels, h, w)`, as the checkpoint expects them normalised."""
        return self.model(pixel_values=inputs).logits
