import math

import numpy as np
import pytest
import torch
from scipy.stats import weibull_min
from tests.scores.conftest import softmax, tensor

from caveat.errors import OptionError
from caveat.scores import openmax
from caveat.scores.openmax import SHIFT, OpenMax, weibull


@pytest.fixture
def answers(generator):
    labels = torch.arange(300) % 5
    logits = 1.5 * torch.randn(300, 5, generator=generator, dtype=torch.float64)
    logits[torch.arange(300), labels] += 5
    return logits, labels


def test_golden():
    # distance sqrt 20 from centres at 0; chosen so that the Weibull probability is 1/2 for both classes:
    # logits 4 and 2 keep 4 (1 - 1/2) and 2 (1 - 1/2 * 1/2), the OOD class gets 2 + 1/2
    zeros, ones = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    level = ones * math.log(math.sqrt(20) / SHIFT / math.log(2))
    score = OpenMax(torch.zeros(2, 2, dtype=torch.float64), zeros + SHIFT, ones, level, alpha=2)
    powers = [math.exp(2.5), math.exp(2), math.exp(1.5)]
    assert score(tensor([4, 2])).item() == pytest.approx(powers[0] / sum(powers))


@pytest.mark.parametrize(("shape", "scale"), [(0.7, 3.0), (2.0, 1.0), (15.0, 40.0)])
def test_weibull_is_scipys(shape, scale):
    values = weibull_min.rvs(shape, scale=scale, size=60, random_state=3)
    found = [float(part) for part in weibull(torch.from_numpy(values))]
    loss = [-weibull_min.logpdf(values, found[0] * a, scale=found[1] * b).sum() for a, b in
            [(1, 1), (1.001, 1), (0.999, 1), (1, 1.001), (1, 0.999)]]  # fmt: skip
    assert loss[0] == min(loss)
    expected, _, spread = weibull_min.fit(values, floc=0)
    assert found == pytest.approx([expected, spread], rel=1e-3)  # SciPy's search stops there


def test_the_formula(answers):
    logits, labels = answers
    x = logits.numpy()
    query = np.random.default_rng(2).normal(2, 2, (80, 5))
    right = x.argmax(axis=1) == labels.numpy()
    centres, models = [], []
    for k in range(5):
        own = x[right & (labels.numpy() == k)]
        centres.append(own.mean(axis=0))
        tail = np.sort(np.linalg.norm(own - centres[k], axis=1))[-20:]
        shape, _, scale = weibull_min.fit(tail - tail[0] + 10_000, 9_000, floc=0, scale=10_000)
        models.append((tail[0], shape, scale))
    expected = []
    for row in query:
        kept = row.copy()
        for i, k in enumerate(np.argsort(row)[::-1][:3]):
            start, shape, scale = models[k]
            distance = np.linalg.norm(row - centres[k])
            kept[k] *= 1 - weibull_min.cdf(distance - start + 10_000, shape, scale=scale) * (3 - i) / 3
        expected.append(softmax(np.r_[(row - kept).sum(), kept][None])[0, 0])
    actual = openmax.fit(logits, labels, tail=20, alpha=3)(torch.from_numpy(query))
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=1e-5)  # SciPy's search stops there
    assert np.std(expected) > 0.1


def test_far_nearer_than_all_known_ones_is_known():
    # the distribution begins 10,000 below 30,000: at distance 0 its chance is 0
    zeros, ones = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    score = OpenMax(torch.zeros(2, 2, dtype=torch.float64), 3 * SHIFT * ones, ones, zeros, alpha=2)
    assert score(tensor([0, 0])).item() == pytest.approx(1 / 3)  # logits 0, 0 and 0


def test_both_options_have_an_effect(answers):
    logits, labels = answers
    base = openmax.fit(logits, labels, tail=20, alpha=3)(logits)
    assert (openmax.fit(logits, labels, tail=40, alpha=3)(logits) - base).abs().max() > 1e-3
    assert (openmax.fit(logits, labels, tail=20, alpha=1)(logits) - base).abs().max() > 1e-3


def test_a_sample_is_scored_as_it_is_in_any_batch(answers):
    # pytorch-ood 0.4.0 measures distances only to the classes that the batch predicts
    logits, labels = answers
    score = openmax.fit(logits, labels)
    one = logits.argmax(dim=1) == 2
    torch.testing.assert_close(score(logits[one]), score(logits)[one], rtol=1e-12, atol=0)


def test_single_precision_holds_the_huge_shapes(answers):
    logits, labels = answers
    score = openmax.fit(logits.float(), labels)
    assert score.shape.min() > 1000
    torch.testing.assert_close(
        score(logits.float()).double(), openmax.fit(logits, labels)(logits), rtol=1e-4, atol=1e-6
    )


def test_classes_that_leave_nothing_to_fit(answers):
    logits, labels = answers
    few = (labels != 1) | (torch.arange(300) < 10)  # two answers of class 1
    score = openmax.fit(logits[few], labels[few])
    assert torch.isinf(score.level[1])
    certain = tensor([0, 9, 0, 0, 0])
    kept = torch.cat([torch.zeros(1, 1, dtype=torch.float64), certain], dim=1).softmax(dim=1)[0, 0]
    torch.testing.assert_close(openmax.fit(logits[few], labels[few], alpha=1)(certain)[0], kept)
    # answers that never vary: anything beyond them is OOD, they are not
    same = torch.eye(3, dtype=torch.float64).mul(8).repeat(10, 1)
    score = openmax.fit(same, torch.arange(30) % 3, alpha=1)
    beyond = score(tensor([12, 0, 0]))
    assert beyond.item() == pytest.approx(softmax(np.array([[12.0, 0, 0, 0]]))[0, 0])
    assert torch.isfinite(score(same)).all()


def test_equal_logits_are_ranked_alike_in_every_batch(answers):
    score = openmax.fit(*answers, alpha=2)
    tied = tensor(*[[3.0, 3.0, 3.0, 0.0, 0.0]] * 40)
    assert len(score(tied).unique()) == 1
    assert score(tied)[0] == score(tied[:1])[0]


@pytest.mark.parametrize(("tail", "alpha"), [(2, 10), (25, 0)])
def test_options(answers, tail, alpha):
    with pytest.raises(OptionError, match=f"tail, alpha: expected at least 3 and 1, got {tail} and {alpha}"):
        openmax.fit(*answers, tail=tail, alpha=alpha)
