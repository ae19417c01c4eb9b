"""Isotonic regression: the max-min formula, scikit-learn as a peer, and answers so sure that p rounds to 1."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from caveat.calibration._odds import log_odds
from caveat.calibration.isotonic import fit
from caveat.errors import DataError, OptionError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)


def noise(n: int, c: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)


def test_two_steps_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4).double()
    g = fit(logits, torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]))
    # Either class has one of four below, three of four above, and a pseudo-sample of weight 1/2 on each side:
    # (1 + 1/2) / 4.5 = 1/3 and 3 / 4.5 = 2/3, at log-odds of -2 and 2, with a straight line between.
    torch.testing.assert_close(g.odds, torch.tensor([[-2.0, 2.0], [-2.0, 2.0]]).double())
    torch.testing.assert_close(g.probs, torch.tensor([[1.0, 2.0], [1.0, 2.0]]).double() / 3)
    asked = torch.tensor([[9.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 30.0]]).double()
    expected = torch.tensor([[8, 4], [7, 5], [6, 6], [4, 8]]).double() / 12
    torch.testing.assert_close(g(asked).exp(), expected)


@PROPERTY
@given(seed=st.integers(0, 10_000), n=st.integers(5, 40), ties=st.booleans())
def test_it_is_the_least_squares_rising_curve(seed: int, n: int, ties: bool) -> None:
    logits, labels = noise(n, 3, seed)
    if ties:
        logits = logits.round()
    labels[:2] = torch.tensor([0, 1])
    g = fit(logits, labels, prior=0.6)
    for k, x in enumerate(log_odds(logits).numpy()):
        # Barlow's formula: f at x_i is the largest over a <= i of the smallest over b >= i of the mean of a to b.
        points = np.unique(x)
        hits = np.array([((labels.numpy() == k) & (x == p)).sum() for p in points], dtype=float)
        weight = np.array([(x == p).sum() for p in points], dtype=float)
        hits[0] += 0.2  # 0.6 pseudo-samples, a third of them of the class
        weight[0] += 0.2
        weight[-1] += 0.4

        def mean(a: int, b: int, hits=hits, weight=weight) -> float:
            return hits[a : b + 1].sum() / weight[a : b + 1].sum()

        m = len(points)
        best = [max(min(mean(a, b) for b in range(i, m)) for a in range(i + 1)) for i in range(m)]
        np.testing.assert_allclose(np.interp(points, g.odds[k], g.probs[k]), best, rtol=1e-9)


@PROPERTY
@given(seed=st.integers(0, 10_000))
def test_as_scikit_learn_on_probabilities_class_by_class(seed: int) -> None:
    logits, labels = noise(200, 4, seed)
    probs = logits.softmax(1).numpy()
    theirs = np.stack([IsotonicRegression().fit_transform(probs[:, k], labels.numpy() == k) for k in range(4)], axis=1)
    got = fit(logits, labels, prior=1e-12)(logits).softmax(1)
    np.testing.assert_allclose(got, theirs / theirs.sum(1, keepdims=True), atol=1e-8)


@PROPERTY
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 50.0]))
def test_curves_rise_between_zero_and_one(seed: int, scale: float) -> None:
    logits, labels = noise(60, 3, seed)
    g = fit(logits * scale, labels)
    assert (g.odds.diff(dim=1) >= 0).all()
    assert (g.probs.diff(dim=1) >= 0).all()
    assert g.probs.min() > 0
    assert g.probs.max() < 1
    # With two more of one class's logit its answer never falls.
    raised = logits * scale
    raised[:, 1] += 2
    assert (g(raised)[:, 1].exp() >= g(logits * scale)[:, 1].exp() - 1e-12).all()


def test_tells_sure_answers_apart() -> None:
    # Both have p = 1 in float64; those of gap 50 are always right, those of gap 40 in one of two.
    logits = torch.tensor([[40.0, 0.0]] * 50 + [[50.0, 0.0]] * 50).double()
    labels = torch.cat((torch.arange(50) % 2, torch.zeros(50, dtype=torch.int64)))
    assert (logits.softmax(1)[:, 0] == 1).all()
    confident = fit(logits, labels)(logits).softmax(1)[:, 0]
    torch.testing.assert_close(confident[:50], torch.full((50,), 0.5).double(), rtol=0, atol=0.02)
    assert (confident[50:] > 0.98).all()


def test_attacks_look_through_between_the_steps() -> None:
    logits, labels = noise(400, 3, 0)
    asked = logits[:20].clone().requires_grad_()
    fit(logits, labels)(asked).softmax(1)[:, 0].sum().backward()
    assert asked.grad is not None
    assert asked.grad.isfinite().all()
    assert (asked.grad != 0).any()


def test_log_odds() -> None:
    logits = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 1.0, 3.0], [2.0, 2.0, -1.0]]).double()
    got = log_odds(logits).T
    log2 = np.log(2.0)
    torch.testing.assert_close(got[0], torch.tensor([1000 - log2, -1000.0, -1000.0]).double())
    p = logits[1:].softmax(1)
    torch.testing.assert_close(got[1:], (p / (1 - p)).log())


def test_mistakes_are_refused() -> None:
    logits, labels = noise(20, 3, 0)
    with pytest.raises(DataError, match="labels: expected at least two classes, got 20 of class 2 only"):
        fit(logits, labels * 0 + 2)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="prior: expected a positive number of pseudo-samples, got"):
            fit(logits, labels, prior=bad)
