"""The small classifier of texts, and what is put around those of transformers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from caveat.errors import ModelError, OptionError
from caveat.models import text_classifier, title
from caveat.models.hub import tokenized

TEXTS = ["Where is my order?", "where is my order ?", "order my is where?", ""]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_tokens_are_words_and_pairs_whatever_their_case_and_the_batch() -> None:
    model = text_classifier(classes=3)
    tokens = model.encode(TEXTS)
    assert tokens.shape == (4, 5 + 6)  # five words and marks, and a pair at each of their ends
    assert torch.equal(tokens[0], tokens[1])
    assert set(tokens[0, :5].tolist()) == set(tokens[2, :5].tolist())
    assert set(tokens[0].tolist()) != set(tokens[2].tolist())  # pairs tell the order
    assert (tokens[:3] > 0).all()
    assert tokens[3].tolist()[1:] == [0] * 10  # one pair of nothing with nothing
    assert torch.equal(model.encode(TEXTS[:1])[0], tokens[0])


def test_tokens_do_not_depend_on_the_process() -> None:
    """Python's own hash differs from process to process; that of weights may not."""
    assert text_classifier(classes=2, buckets=1001).encode(["hello"])[0].tolist() == [
        1 + 907060870 % 1000, 1 + 1180497166 % 1000, 1 + 3984718326 % 1000
    ]  # CRC-32 of "hello", " hello" and "hello "  # fmt: skip


def test_padding_changes_nothing_and_gradients_reach_every_weight() -> None:
    model = text_classifier(classes=4, buckets=40, width=6, generator=seeded(1)).eval()
    tokens = model.encode(TEXTS)
    torch.testing.assert_close(model(functional.pad(tokens, (0, 7))), model(tokens))
    torch.testing.assert_close(model(tokens)[1:2], model(tokens[1:2]))
    functional.cross_entropy(model(tokens), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())
    assert model.embed.weight.grad is not None
    assert not model.embed.weight.grad[0].any()  # padding stays 0


def test_weights_depend_on_the_generator_and_on_nothing_else() -> None:
    before = torch.get_rng_state()
    one, two, other = (text_classifier(classes=3, buckets=9, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.embed.weight, other.embed.weight)


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"buckets": 1}, {"width": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        text_classifier(**wrong)


class Tokenizer:
    """Called as transformers' tokenizers are: a token per letter, with padding that is not 0."""

    pad_token_id: int | None = 1
    model_max_length = int(1e30)

    def __call__(self, texts: list[str], **options: Any) -> dict[str, Tensor]:
        assert options == {
            "padding": True, "padding_side": "right", "truncation": True, "max_length": 6, "return_tensors": "pt",
        }  # fmt: skip
        rows = [[ord(letter) - 97 for letter in text][:6] for text in texts]
        longest = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [1] * (longest - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        }


class Classifier(nn.Module):
    """Called as transformers' classifiers are; its logits are the tokens under the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(id2label={1: "no", 0: "yes"}, pad_token_id=1, max_position_embeddings=6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.cat([input_ids, attention_mask], dim=1).float())


def test_a_classifier_of_transformers_is_called_with_its_own_tokens() -> None:
    model = tokenized(Classifier(), Tokenizer())
    tokens = model.encode(["abc", "b", "abcdefghij"])
    assert tokens.tolist() == [[1, 2, 3, 0, 0, 0], [2, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]]  # 0 pads, as everywhere
    ids, mask = model(tokens).split(6, dim=1)
    assert ids.tolist() == [[0, 1, 2, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert model.classes == ("yes", "no")
    assert title(model) == "Classifier"


def test_a_tokenizer_without_padding_is_refused() -> None:
    tokenizer = Tokenizer()
    tokenizer.pad_token_id = None
    with pytest.raises(ModelError, match="names no padding"):
        tokenized(Classifier(), tokenizer)
