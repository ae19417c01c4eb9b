"""Histogram binning: by hand, and against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.calibration._odds import log_odds
from caveat.calibration.histogram import fit
from caveat.errors import DataError, OptionError
from caveat.metrics.calibration import confidence_bins, ece

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


def looped(x: np.ndarray, hits: np.ndarray, rate: float, bins: int, ties: bool) -> np.ndarray:
    """One step function by plain loops, half a pseudo-sample a bin."""
    ranked, n = np.sort(x), len(x)
    cuts = [(ranked[i * n // bins - 1] + ranked[i * n // bins]) / 2 for i in range(1, bins)]
    own = np.array([sum(v >= cut for cut in cuts) for v in x])
    if not ties:  # bins of equal count, up to one
        assert {len(x[own == b]) for b in range(bins)} <= {n // bins, n // bins + 1}
    return np.array([(hits[own == b].sum() + 0.5 * rate) / ((own == b).sum() + 0.5) for b in own])


@PROPERTY
@given(
    seed=st.integers(0, 10_000), n=st.integers(7, 60), bins=st.integers(1, 7), c=st.integers(2, 4), ties=st.booleans()
)
def test_as_plain_loops(seed: int, n: int, bins: int, c: int, ties: bool) -> None:
    logits, labels = noise(n, c, seed)
    if ties:
        logits = logits.round()
    got = fit(logits, labels, bins=bins, prior=0.5)(logits).softmax(1).numpy()
    odds, truth, predicted = log_odds(logits).numpy(), labels.numpy(), logits.argmax(1).numpy()
    each = np.stack([looped(odds[k], truth == k, ((truth == k).sum() + 1) / (n + c), bins, ties) for k in range(c)], 1)
    if c == 2:
        np.testing.assert_allclose(got, each / each.sum(1, keepdims=True), rtol=1e-9)
        return
    right = truth == predicted
    confidence = looped(odds.max(0), right, (right.sum() + 1) / (n + 2), bins, ties)
    for i, k in enumerate(predicted):
        others = np.arange(c) != k
        share = each[i, others] / each[i, others].sum()
        top = max(confidence[i], 1 / (1 + 0.95 * (c - 1)))
        np.testing.assert_allclose(got[i, k], top, rtol=1e-9)
        if (1 - top) * share.max() <= 0.95 * top:
            np.testing.assert_allclose(got[i, others], (1 - top) * share, rtol=1e-9)
        else:  # pulled towards equal shares just as far as it takes
            np.testing.assert_allclose(got[i, others].max(), 0.95 * top, rtol=1e-9)
            spread, levelled = share - share.mean(), got[i, others] - got[i, others].mean()
            np.testing.assert_allclose(levelled * spread.max(), spread * levelled.max(), atol=1e-12)


@pytest.mark.parametrize(("n", "c"), [(200, 43), (1000, 43), (2000, 100)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_many_classes_lose_no_accuracy(n: int, c: int, dtype: torch.dtype) -> None:
    def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Twice as confident as is right, with frequent and rare classes."""
        generator = torch.Generator().manual_seed(seed)
        rates = torch.linspace(0, 3, c).exp()
        labels = torch.multinomial(rates, count, replacement=True, generator=generator)
        evidence = torch.randn(count, c, generator=generator)
        evidence[torch.arange(count), labels] += 3.5
        return (7 * evidence).to(dtype), labels

    held_out, (logits, labels) = drawn(n, 0), drawn(10_000, 1)
    calibrated = fit(*held_out)(logits)
    assert torch.equal(calibrated.argmax(1), logits.argmax(1))
    before, after = (ece(confidence_bins(found.double().softmax(1), labels)) for found in (logits, calibrated))
    assert after < before / 1.5


def test_one_bin_gives_the_class_frequencies() -> None:
    logits, _ = noise(40, 2, 0)
    labels = torch.tensor([0] * 30 + [1] * 10)
    got = fit(logits, labels, bins=1, prior=1e-9)(logits).softmax(1)
    torch.testing.assert_close(got, torch.tensor([[0.75, 0.25]]).double().expand(40, 2))


@pytest.mark.parametrize(("n", "c", "bins"), [(7, 3, 1), (100, 3, 5), (2000, 3, 15), (2000, 12, 24)])
def test_default_number_of_bins(n: int, c: int, bins: int) -> None:
    assert fit(*noise(n, c, 0)).probs.shape == (c + 1, bins)


def test_never_certain() -> None:
    logits, _ = noise(400, 4, 0)
    got = fit(logits, logits.argmax(1))(logits)
    assert got.isfinite().all()
    # Right in 20 of 20, and in 401 of 402 of one pseudo-sample; of the rest, 1 of 4 of one in 21, in a sum below 2.
    assert -math.log(402 * 21 * 84 * 2) < got.min() < -3


def test_mistakes_are_refused() -> None:
    logits, labels = noise(20, 3, 0)
    for bad in (0, 21):
        with pytest.raises(OptionError, match=rf"bins: expected 1 to 20 \(the number of labelled samples\), got {bad}"):
            fit(logits, labels, bins=bad)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="prior: expected a positive number of pseudo-samples, got"):
            fit(logits, labels, prior=bad)


@pytest.mark.parametrize("c", [2, 3, 5])
def test_logits_of_another_number_of_classes_are_refused(c: int) -> None:
    """One class more has as many rows as the steps of three classes and of the predicted one."""
    g = fit(*noise(200, c, 0))
    for other in (c - 1, c + 1):
        with pytest.raises(DataError, match=rf"expected {c} classes, as in the fit, got {other}"):
            g(torch.zeros(4, other))
