import math

import pytest
import torch
from tests.scores.conftest import tensor
from torch.nn.functional import cross_entropy

from caveat.errors import OptionError
from caveat.scores import gradnorm


def test_golden():
    # logits log 3 and 0: p = 3/4 and 1/4, so ||p - 1/2||_1 = 1/2; ||x||_1 = 3
    head = (tensor([math.log(3), 0], [0, 0]), torch.zeros(2, dtype=torch.float64))
    score = gradnorm.fit(tensor([1, -2]), torch.tensor([0]), head)
    assert score(tensor([1, -2])).item() == pytest.approx(-1.5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_the_norm_of_the_gradient_that_autograd_finds(relu_sample, queries, temperature):
    weight, bias = relu_sample[2]
    expected = []
    for x in queries:
        leaf = weight.clone().requires_grad_()
        logits = (x @ leaf.T + bias) / temperature
        uniform = torch.full_like(logits, 1 / len(logits))
        cross_entropy(logits[None], uniform[None]).backward()
        expected.append(-leaf.grad.abs().sum())
    actual = gradnorm.fit(*relu_sample, temperature=temperature)(queries)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-10, atol=1e-12)
    assert actual[0] == 0  # no active unit, no gradient


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_options(relu_sample, temperature):
    with pytest.raises(OptionError, match="temperature: expected a positive number"):
        gradnorm.fit(*relu_sample, temperature=temperature)
