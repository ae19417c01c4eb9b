"""ReAct, VRA and DICE: energies after activations or weights are cut."""

import math

import numpy as np
import pytest
import torch
from tests.scores.conftest import energy, tensor

from caveat.errors import OptionError
from caveat.scores import dice, react, vra

TEN = torch.arange(10, dtype=torch.float64).view(5, 2)  # activations 0 ... 9
LABELS = torch.zeros(5, dtype=torch.long)
HEAD = (torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))


def test_golden():
    score = react.fit(TEN, LABELS, HEAD, share=0.5)  # the median of 0 ... 9 is 4.5
    assert score(tensor([6, 1])).item() == pytest.approx(-math.log(math.exp(4.5) + math.exp(1)))
    score = vra.fit(TEN, LABELS, HEAD, lower=1 / 3, upper=2 / 3)  # cut below 3 and above 6
    assert score(tensor([8, 2])).item() == pytest.approx(-math.log(math.exp(6) + 1))
    assert score(tensor([3, 6])).item() == pytest.approx(-math.log(math.exp(3) + math.exp(6)))
    # mean feature (1, 2), so contributions 3 2 -1 4 with median 2.5: the weights 3 and 2 (of 4) stay
    head = (tensor([3, 1], [-1, 2]), tensor(0, 1))
    score = dice.fit(tensor([1, 2]), torch.tensor([0]), head, share=0.5)
    assert score(tensor([1, 1])).item() == pytest.approx(-math.log(2 * math.exp(3)))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.93])
def test_the_formulas(relu_sample, queries, as_numpy, share):
    known, _, w, b, x = as_numpy
    high, low = np.quantile(known, share), np.quantile(known, share / 2)
    np.testing.assert_allclose(react.fit(*relu_sample, share=share)(queries), energy(np.minimum(x, high) @ w.T + b))
    cut = np.where(x < low, 0, np.minimum(x, high))
    np.testing.assert_allclose(vra.fit(*relu_sample, lower=share / 2, upper=share)(queries), energy(cut @ w.T + b))
    contribution = w * known.mean(axis=0)
    sparse = np.where(contribution > np.quantile(contribution, share), w, 0)
    np.testing.assert_allclose(dice.fit(*relu_sample, share=share)(queries), energy(x @ sparse.T + b))


def test_thresholds_at_the_ends(relu_sample, queries):
    features, labels, head = relu_sample
    plain = -torch.logsumexp(queries @ head[0].T + head[1], dim=1)
    top = features.max()
    score = react.fit(features, labels, head, share=1.0)
    assert score.threshold == top
    torch.testing.assert_close(score(queries.clamp_max(top)), -torch.logsumexp(
        queries.clamp_max(top) @ head[0].T + head[1], dim=1
    ))  # fmt: skip
    # features below 0: VRA with `lower` 0 lets all in-distribution ones pass, whatever their sign
    shifted = features - 1
    score = vra.fit(shifted, labels, head, lower=0.0, upper=1.0)
    assert score.high == shifted.max()
    assert -2e-5 < score.low - shifted.min() < 0  # a rounding below, so that the lowest passes in any batch
    assert plain.std() > 0


def test_quantile_is_numpys_also_on_a_part(generator):
    values = torch.randn(1000, 7, generator=generator)
    for share in (0.0, 0.1, 1 / 3, 0.9, 1.0):
        assert react.quantile(values, share) == pytest.approx(np.quantile(values.double().numpy(), share), rel=1e-12)
    assert react.quantile(values, 0.9, limit=1400) == pytest.approx(np.quantile(values.numpy(), 0.9), abs=0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: react.fit(*s, share=0.0), r"share: expected a number in \(0, 1\]"),
        (lambda s: react.fit(*s, share=1.1), "share: expected"),
        (lambda s: vra.fit(*s, lower=0.5, upper=0.5), "lower, upper: expected 0 <= lower < upper <= 1"),
        (lambda s: vra.fit(*s, lower=-0.1), "lower, upper"),
        (lambda s: dice.fit(*s, share=1.0), r"share: expected a number in \[0, 1\)"),
    ],
)
def test_options(relu_sample, call, message):
    with pytest.raises(OptionError, match=message):
        call(relu_sample)
