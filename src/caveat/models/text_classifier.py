"""A small classifier of texts: the mean of embeddings of words and of pairs of words."""

import re
import zlib
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from caveat.errors import OptionError
from caveat.models.initialise import built
from caveat.types import Logits

__all__ = ["TextClassifier", "text_classifier"]

WORD = re.compile(r"\w+|[^\w\s]")
"""A word, or a mark of punctuation."""
PADDING = 0


class TextClassifier(nn.Module):
    """Tokens to logits; `encode` makes the tokens.

    Words and pairs of neighbours are hashed into buckets, so that no file of a vocabulary belongs to the weights; two
    that share a bucket share an embedding.
    """

    def __init__(self, *, classes: int, buckets: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(buckets, width, padding_idx=PADDING)
        self.hidden = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, classes)

    def encode(self, texts: list[str]) -> Int[Tensor, "n t"]:
        """Tokens from 1 on, of whatever length the longest text needs; the others end in 0."""
        return pad_sequence([self._tokens(text) for text in texts], batch_first=True, padding_value=PADDING)

    def _tokens(self, text: str) -> Tensor:
        words = ["", *WORD.findall(text.lower()), ""]
        parts = [*words[1:-1], *map(" ".join, pairwise(words))]  # a pair tells the first word and the last one, too
        return torch.tensor([1 + zlib.crc32(part.encode()) % (self.embed.num_embeddings - 1) for part in parts])

    def forward(self, tokens: Int[Tensor, "n t"]) -> Logits:
        """Logits."""
        count = (tokens != PADDING).sum(dim=1, keepdim=True).clamp_min(1)
        return self.head(self.hidden(self.embed(tokens).sum(dim=1) / count.sqrt()))


def text_classifier(
    *,
    classes: int = 150,
    buckets: int = 1 << 15,
    width: int = 128,
    dropout: float = 0.3,
    generator: torch.Generator | None = None,
) -> TextClassifier:
    """Embeddings of hashed words and pairs of words, summed and divided by the root of their number; a hidden layer
    with ReLU and dropout; the head.

    Raises
    ------
    OptionError
        If there are fewer than two classes, fewer than two buckets, no width, or `dropout` is not in [0, 1).
    """
    for name, value, least in (("classes", classes, 2), ("buckets", buckets, 2), ("width", width, 1)):
        if value < least:
            raise OptionError(f"{name}: expected at least {least}, got {value}")
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout: expected a share in [0, 1), got {dropout}")

    def make() -> TextClassifier:
        return TextClassifier(classes=classes, buckets=buckets, width=width, dropout=dropout)

    generator = generator or torch.Generator().manual_seed(0)
    model = built(make, generator)
    # small, so that a few steps of Adam are large beside them: with 0.3 CLINC150 needs three times the epochs
    nn.init.normal_(model.embed.weight, std=0.03, generator=generator)
    with torch.no_grad():
        model.embed.weight[PADDING] = 0
    return model
