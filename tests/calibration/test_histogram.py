"""Histogram binning: by hand, and against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.calibration._odds import log_odds
from caveat.calibration.histogram import fit
from caveat.errors import OptionError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)


def noise(n: int, c: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)


def test_two_bins_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4).double()
    g = fit(logits, torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), bins=2)
    torch.testing.assert_close(g.edges, torch.zeros(2, 1).double())
    # Rates (3 + 1) / (8 + 2) and (5 + 1) / (8 + 2), one pseudo-sample a bin of 4: (0 + 0.4) / 5, (3 + 0.4) / 5 ...
    torch.testing.assert_close(g.probs, torch.tensor([[0.4, 3.4], [1.6, 4.6]]).double() / 5)
    asked = torch.tensor([[0.1, 0.0], [0.0, 70.0], [0.0, 0.0]]).double()  # an edge belongs to the bin above
    expected = torch.tensor([[3.4 / 5.0, 1.6 / 5.0], [0.4 / 5.0, 4.6 / 5.0], [3.4 / 8.0, 4.6 / 8.0]]).double()
    torch.testing.assert_close(g(asked).exp(), expected)


@PROPERTY
@given(seed=st.integers(0, 10_000), n=st.integers(7, 60), bins=st.integers(1, 7), ties=st.booleans())
def test_as_plain_loops(seed: int, n: int, bins: int, ties: bool) -> None:
    logits, labels = noise(n, 3, seed)
    if ties:
        logits = logits.round()
    g = fit(logits, labels, bins=bins, prior=0.5)
    expected = np.empty((n, 3))
    for k, x in enumerate(log_odds(logits).numpy()):
        ranked = np.sort(x)
        cuts = [(ranked[i * n // bins - 1] + ranked[i * n // bins]) / 2 for i in range(1, bins)]
        own = np.array([sum(v >= cut for cut in cuts) for v in x])
        rate = ((labels == k).sum().item() + 1) / (n + 3)
        for i in range(n):
            same = own == own[i]
            expected[i, k] = ((labels.numpy() == k)[same].sum() + 0.5 * rate) / (same.sum() + 0.5)
        if not ties:  # bins of equal count, up to one
            assert {len(x[own == b]) for b in range(bins)} <= {n // bins, n // bins + 1}
    np.testing.assert_allclose(g(logits).softmax(1), expected / expected.sum(1, keepdims=True), rtol=1e-9)


def test_one_bin_gives_the_class_frequencies() -> None:
    logits, _ = noise(40, 2, 0)
    labels = torch.tensor([0] * 30 + [1] * 10)
    got = fit(logits, labels, bins=1, prior=1e-9)(logits).softmax(1)
    torch.testing.assert_close(got, torch.tensor([[0.75, 0.25]]).double().expand(40, 2))


@pytest.mark.parametrize(("n", "c", "bins"), [(7, 3, 1), (100, 3, 5), (2000, 3, 15), (2000, 12, 24)])
def test_default_number_of_bins(n: int, c: int, bins: int) -> None:
    assert fit(*noise(n, c, 0)).probs.shape[1] == bins


def test_never_certain() -> None:
    logits, _ = noise(400, 4, 0)
    got = fit(logits, logits.argmax(1))(logits)
    assert got.isfinite().all()
    assert -math.log(400 * 20) < got.min() < -3


def test_mistakes_are_refused() -> None:
    logits, labels = noise(20, 3, 0)
    for bad in (0, 21):
        with pytest.raises(OptionError, match=rf"bins: expected 1 to 20 \(the number of labelled samples\), got {bad}"):
            fit(logits, labels, bins=bad)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="prior: expected a positive number of pseudo-samples, got"):
            fit(logits, labels, prior=bad)
