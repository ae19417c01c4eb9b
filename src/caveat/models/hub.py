"""Classifiers of transformers as plain networks: pictures in [0, 1], or tokens of texts, to logits."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from caveat.errors import ModelError
from caveat.models.normalized import Normalized
from caveat.types import Logits

__all__ = ["LogitsOnly", "Tokenized", "prepared", "tokenized"]


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


class Tokenized(nn.Module):
    """Calls a transformers classifier of texts and returns its logits alone; `encode` makes tokens by its tokenizer.

    Tokens are counted from 1 on, so that 0 is padding for every tokenizer, and the mask follows from them.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, classes: tuple[str, ...], *, longest: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self._tokenizer, self._longest = tokenizer, longest

    def encode(self, texts: list[str]) -> Int[Tensor, "n t"]:
        """Tokens plus 1, padded with 0; cut off where the network or its tokenizer ends."""
        found = self._tokenizer(
            texts, padding=True, padding_side="right", truncation=True, max_length=self._longest, return_tensors="pt"
        )
        return (found["input_ids"] + 1) * found["attention_mask"]

    def forward(self, tokens: Int[Tensor, "n t"]) -> Logits:
        """Logits."""
        known = tokens > 0
        ids = torch.where(known, tokens - 1, self._tokenizer.pad_token_id)
        return self.model(input_ids=ids, attention_mask=known.long()).logits


def tokenized(model: Any, tokenizer: Any) -> Tokenized:
    """The classifier with its tokenizer; `classes` are the names of its labels.

    Raises
    ------
    ModelError
        If the tokenizer has no padding: then texts of different length make no batch.
    """
    if tokenizer.pad_token_id is None or model.config.pad_token_id is None:
        raise ModelError(
            "--model: its tokenizer or its configuration names no padding (pad_token), so that texts of different "
            "length make no batch; save it again with both"
        )
    names = model.config.id2label
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 1 << 20)
    return Tokenized(model, tokenizer, tuple(str(names[k]) for k in sorted(names)), longest=longest)
