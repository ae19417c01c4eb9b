"""Proper scores against scikit-learn and by hand; Murphy's identity."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from caveat.errors import DataError
from caveat.metrics.calibration import classwise_bins, merge
from caveat.metrics.proper import (
    accuracy,
    brier,
    brier_decomposition,
    brier_of_each,
    brier_parts,
    nll,
    nll_of_each,
    right_of_each,
)

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)


def network(n: int = 300, c: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randint(0, c, (n,), generator=generator)


@PROPERTY
@given(st.integers(0, 10_000))
def test_equals_scikit_learn(seed: int) -> None:
    logits, labels = network(seed=seed)
    probs = logits.softmax(1)
    theirs = log_loss(labels.numpy(), probs.numpy(), labels=range(4))
    assert nll(logits, labels).item() == pytest.approx(theirs, rel=1e-12)
    one_hot = np.eye(4)[labels]
    each = sum(brier_score_loss(one_hot[:, k], probs[:, k].numpy()) for k in range(4))
    assert brier(probs, labels).item() == pytest.approx(each, rel=1e-12)
    assert accuracy(probs, labels).item() == (probs.argmax(1) == labels).double().mean().item()


def test_goldens_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert nll_of_each(logits, torch.tensor([0, 1])).tolist() == pytest.approx([math.log(2), math.log(4)], rel=1e-6)
    probs = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.25, 0.25]])
    labels = torch.tensor([0, 2, 1])
    assert brier_of_each(probs, labels).tolist() == [0, 2, 0.25 + 0.5625 + 0.0625]
    assert right_of_each(probs, labels).tolist() == [1, 0, 0]
    assert accuracy(probs, labels).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_confident_mistakes_cost_what_they_cost(dtype: torch.dtype) -> None:
    # Through float32 probabilities this would be infinite, or clipped to -log(eps) = 16.
    logits = torch.tensor([[1e4, 0.0], [-1e4, 1e4], [200.0, 0.0]], dtype=dtype)
    assert nll_of_each(logits, torch.tensor([1, 0, 0])).tolist() == pytest.approx([1e4, 2e4, math.exp(-200)], abs=1e-12)


def test_a_constant_shift_is_irrelevant() -> None:
    logits, labels = network()
    assert nll(logits + 100, labels).item() == pytest.approx(nll(logits, labels).item(), rel=1e-12)


def test_dense_is_flattened_and_void_is_left_out() -> None:
    logits, labels = network(96)
    marked = labels.clone()
    marked[::5] = -100
    kept = marked != -100
    for metric, outputs in (
        (nll_of_each, logits),
        (brier_of_each, logits.softmax(1)),
        (right_of_each, logits.softmax(1)),
    ):
        picture = outputs.reshape(4, 4, 6, 4).movedim(-1, 1)
        assert torch.equal(metric(picture, marked.reshape(4, 4, 6), void=-100), metric(outputs[kept], labels[kept]))
        assert torch.equal(metric(picture, labels.reshape(4, 4, 6)), metric(outputs, labels))


def test_the_input_is_left_as_it_was() -> None:
    logits, labels = network()
    probs = logits.softmax(1)
    before = probs.clone()
    brier(probs, labels)
    assert torch.equal(probs, before)
    assert not nll(logits.requires_grad_(), labels).requires_grad


@PROPERTY
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_murphys_identity_holds_with_any_bins(seed: int, bins: int) -> None:
    logits, labels = network(60, seed=seed)
    probs = logits.softmax(1)
    parts = brier_decomposition(probs, labels, bins=bins)
    total = parts.calibration - parts.refinement + parts.uncertainty
    assert total.item() == pytest.approx(brier(probs, labels).item(), abs=1e-14)
    # The refinement independently: resolution - within-bin variance + 2 within-bin covariance (Stephenson et al.).
    p, y = probs.numpy(), np.eye(4)[labels]
    expected = 0.0
    for k in range(4):
        place = np.clip(np.ceil(p[:, k] * bins), 1, bins)
        for m in np.unique(place):
            pb, yb = p[place == m, k], y[place == m, k]
            spread = pb - pb.mean()
            inside = -(spread**2).sum() + 2 * (spread * (yb - yb.mean())).sum()
            expected += len(pb) * (yb.mean() - y[:, k].mean()) ** 2 + inside
    assert parts.refinement.item() == pytest.approx(expected / 60, abs=1e-12)
    frequency = y.mean(0)
    assert parts.uncertainty.item() == pytest.approx((frequency * (1 - frequency)).sum(), abs=1e-14)


def test_decomposition_golden() -> None:
    # Forecast 3/4 four times, right three times; forecast 1/4 four times, the class came once: calibrated.
    first = torch.tensor([0.75] * 4 + [0.25] * 4, dtype=torch.float64)
    probs, labels = torch.stack((first, 1 - first), 1), torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
    got = brier_decomposition(probs, labels, bins=4)
    # Both classes: frequency 1/2, the bins' 3/4 and 1/4.
    assert got.calibration.item() == 0
    assert got.uncertainty.item() == 0.5
    assert got.refinement.item() == pytest.approx(2 * 0.25**2)
    off = brier_decomposition(probs.flip(1), labels, bins=4)
    assert off.calibration.item() == pytest.approx(2 * 0.5**2)
    assert off.refinement.item() == pytest.approx(2 * 0.25**2)


def test_decomposition_can_be_streamed() -> None:
    logits, labels = network()
    probs = logits.softmax(1)
    counted = merge(classwise_bins(probs[:100], labels[:100]), classwise_bins(probs[100:], labels[100:]))
    got = brier_parts(counted, brier(probs, labels))
    for ours, at_once in zip(got, brier_decomposition(probs, labels), strict=True):
        assert ours.item() == pytest.approx(at_once.item(), abs=1e-14)


def test_mistakes_are_refused() -> None:
    logits, labels = network(3)
    bad = logits.clone()
    bad[0, 0] = float("inf")
    with pytest.raises(DataError, match="logits: expected finite values, got 1 NaN or infinite of 12"):
        nll(bad, labels)
    with pytest.raises(DataError, match="labels: expected 0 to 3, got 4"):
        nll(logits, labels * 0 + 4)
    for metric in (brier, accuracy, brier_decomposition):
        with pytest.raises(DataError, match="if these are logits"):
            metric(logits, labels)
        with pytest.raises(DataError, match="none is labelled"):
            metric(logits[:0].softmax(1), labels[:0])
