"""ViM, residual and pNML: what known features leave unused."""

import math

import numpy as np
import pytest
import torch
from tests.scores.conftest import softmax, tensor

from caveat.errors import OptionError
from caveat.scores import pnml, residual, vim


def test_golden():
    # features along (3, 4) but for +-1 across it; the head's origin is 0
    along, across = tensor([3, 4])[0], tensor([4, -3])[0] / 5
    features = torch.stack([2 * along + across, 2 * along - across, 5 * along + across, 5 * along - across])
    labels = torch.tensor([0, 1, 0, 1])
    head = (torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    x = (along + 7 * across)[None]
    assert residual.fit(features, labels, head, dimension=1)(x).item() == pytest.approx(7)
    # largest logits: 8.6, 7.4 + ... = the second feature, 8 -+ .6 and 20 -+ .6: mean 14; the residual is always 1
    logits = x[0].tolist()
    expected = 14 * 7 - math.log(math.exp(logits[0]) + math.exp(logits[1]))
    assert vim.fit(features, labels, head, dimension=1)(x).item() == pytest.approx(expected)
    # X^T X = diag(3, 1); x along the first axis: s = 1/3, g = 1/4; p = 3/4 and 1/4
    known = tensor([2, 0], [5, 0], [1, 0], [0, 3])
    head = (tensor([math.log(3), 0], [0, 0]), torch.zeros(2, dtype=torch.float64))
    score = pnml.fit(known, torch.tensor([0, 0, 0, 1]), head)
    total = 0.75 / (0.75 + 0.25 * 0.75**0.25) + 0.25 / (0.25 + 0.75 * 0.25**0.25)
    assert score(tensor([9, 0])).item() == pytest.approx(math.log(total) / math.log(2))


@pytest.mark.parametrize("dimension", [1, 5, 9])
def test_residual_is_the_formula(relu_sample, queries, as_numpy, dimension):
    known, _, w, b, x = as_numpy
    origin = -np.linalg.pinv(w) @ b
    _, _, right = np.linalg.svd(known - origin)  # another way than ours to the principal space
    expected = np.linalg.norm((x - origin) @ right[dimension:].T, axis=1)
    np.testing.assert_allclose(residual.fit(*relu_sample, dimension=dimension)(queries), expected, rtol=1e-8)


def test_pnml_is_the_formula(relu_sample, queries, as_numpy):
    known, _, w, b, x = as_numpy
    unit = [a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-300) for a in (known, x)]
    s = np.einsum("nd,de,ne->n", unit[1], np.linalg.pinv(unit[0].T @ unit[0]), unit[1])
    g, p = (s / (1 + s))[:, None], softmax(unit[1] @ w.T + b)
    expected = np.log((p / (p + (1 - p) * p**g)).sum(axis=1)) / np.log(p.shape[1])
    actual = pnml.fit(*relu_sample)(queries)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-14)
    assert actual[0] == 0  # a feature of length 0 has no direction that could be unusual


def test_pnml_keeps_its_digits_when_the_answer_is_certain(relu_sample, queries):
    features, labels, (weight, bias) = relu_sample
    sharp = (6 * weight, bias)
    exact = pnml.fit(features, labels, sharp)(queries[1:])
    single = pnml.fit(features.float(), labels, (sharp[0].float(), bias.float()))(queries[1:].float())
    assert exact.min() < 1e-5  # the logarithm of a float32 near 1 would be 0 or 1.2e-7
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("size", "kept"), [(1e-4, 11), (1e-8, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pnml_keeps_weak_directions_but_not_rounding_in_either_precision(relu_sample, size, kept, dtype):
    # pytorch-ood 0.4.0 drops directions below 1e-3 of the strongest, two thirds of a small network's, and what is
    # foreign there
    features, labels, (weight, bias) = relu_sample
    weak = size * torch.randn(240, 1, generator=torch.Generator().manual_seed(1)).double()
    features, weight = torch.cat([features, weak], dim=1), torch.cat([weight, torch.zeros(4, 1).double()], dim=1)
    score = pnml.fit(features.to(dtype), labels, (weight.to(dtype), bias.to(dtype)))
    assert len(score.whiten) == kept
    foreign = features.clone()
    foreign[:, 10] = 0.01
    assert (score(foreign.to(dtype)).median() > 5 * score(features.to(dtype)).median()) == (kept == 11)


def test_rows_of_the_head_that_add_up_to_zero_leave_no_direction_to_invert(relu_sample, queries):
    # training with weight decay brings heads there; rounded to float32 the sum is 1e-8, and inverting it moves the
    # origin far away
    features, labels, (weight, bias) = relu_sample
    centred = weight - weight.mean(dim=0)
    rounded = (centred.float(), bias.float())
    exact = -np.linalg.pinv(centred.numpy(), rcond=1e-9) @ bias.numpy()
    score = vim.fit(features.float(), labels, rounded, dimension=4)
    np.testing.assert_allclose(score.origin, exact, rtol=1e-4, atol=1e-5)
    in_double = vim.fit(features, labels, (rounded[0].double(), bias), dimension=4)
    np.testing.assert_allclose(score(queries.float()), in_double(queries), rtol=1e-3, atol=1e-3)


def test_the_virtual_logit_grows_with_the_residual_also_where_logits_are_negative(relu_sample, queries):
    features, labels, (weight, bias) = relu_sample
    score = vim.fit(features, labels, (weight, bias - 100), dimension=4)
    assert score.scale > 0
    far = score.residual[:, 0] * 5
    nothing = torch.zeros(1, 10, dtype=torch.float64)
    # along the residual space the logits change too: only the virtual logit is compared
    virtual = [score(x) + torch.logsumexp(x @ weight.T + bias - 100, dim=1) for x in (nothing, nothing + 10 * far)]
    assert virtual[1] > virtual[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_residual_that_is_only_rounding_is_refused_and_the_default_looks_at_the_rank(dtype, generator):
    """12 of 20 features are dead: half of 20 leaves rounding, which `residual` scored, and `vim` ignored."""
    features, weight = torch.zeros(200, 20, dtype=dtype), torch.zeros(3, 20, dtype=dtype)
    features[:, :8] = torch.randn(200, 8, generator=generator, dtype=dtype)
    weight[:, :3] = torch.eye(3, dtype=dtype)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=dtype)).Q
    features, head, labels = features @ turn, (weight @ turn, torch.ones(3, dtype=dtype)), torch.arange(200) % 3
    for fit in (vim.fit, residual.fit):
        with pytest.raises(OptionError, match="a principal space of 1 to 7 of 20 features, which have rank 8, got 9"):
            fit(features, labels, head, dimension=9)
        found, right = fit(features, labels, head)(features), fit(features, labels, head, dimension=4)(features)
        assert torch.equal(found, right)
    assert residual.fit(features, labels, head)(features).median() > 0.1
    assert vim.fit(features, labels, head).scale > 0.1
    # 4 of 10 features vary, and the origin is elsewhere: rank 5, so that half of 10 would leave nothing beside
    four = torch.cat((features[:, :4], torch.zeros(len(features), 6).to(features)), dim=1)
    assert vim.fit(four, labels, (head[0][:, :10], head[1])).residual.shape == (10, 8)
    few = residual.fit(features[:6], labels[:6], head)  # of six samples half span the space
    assert few.residual.shape == (20, 17)


@pytest.mark.parametrize("dimension", [0, 10, 64])
def test_options(relu_sample, dimension):
    for fit in (vim.fit, residual.fit):
        with pytest.raises(
            OptionError, match="dimension: expected a principal space of 1 to 9 of 10 features, which have rank 10"
        ):
            fit(*relu_sample, dimension=dimension)
