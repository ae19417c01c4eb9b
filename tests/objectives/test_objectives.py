"""Contract of every objective, and cross-entropy's closed forms."""

import dataclasses
import math

import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from caveat.errors import OptionError
from caveat.objectives import OBJECTIVES, cross_entropy

NUMBERS = [
    (name, field.name)
    for name, made in OBJECTIVES.items()
    if dataclasses.is_dataclass(made)
    for field in dataclasses.fields(made)
    if type(field.default) in (int, float)
]


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_a_number_out_of_range_is_refused_by_its_own_name(name: str, field: str) -> None:
    """ibp(radius=-1) told of a weight first."""
    with pytest.raises(OptionError, match=f"^{field}: expected .*, got -1$"):
        dataclasses.replace(OBJECTIVES[name], **{field: -1})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_scalar_with_a_gradient_that_repeats_with_the_generator(name: str):
    inputs = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    before = torch.get_rng_state()
    first, second = (OBJECTIVES[name](model, inputs, labels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    first.backward()
    assert all(weight.grad is not None for weight in model.parameters())
    stepped = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    stepped.load_state_dict({name: weight - 1e-4 * weight.grad for name, weight in model.named_parameters()})
    assert OBJECTIVES[name](stepped, inputs, labels, torch.Generator().manual_seed(1)) < first


def test_cross_entropy_is_the_negative_log_likelihood(generator: torch.Generator):
    logits = 3 * torch.randn(50, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (50,), generator=generator)
    ours = cross_entropy(nn.Identity(), logits, labels, generator).item()
    assert ours == pytest.approx(log_loss(labels.numpy(), logits.softmax(1).numpy(), labels=range(5)), rel=1e-12)


def test_cross_entropy_of_a_uniform_answer(generator: torch.Generator):
    value = cross_entropy(nn.Identity(), torch.full((3, 8), 2.0), torch.tensor([0, 3, 7]), generator)
    assert value.item() == pytest.approx(math.log(8))
