"""Conformalised quantile regression: what it promises over many splits, and what it adds to an interval."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat import fitted
from caveat.calibration import CONFORMAL_INTERVALS, cqr
from caveat.errors import DataError, OptionError


def heteroscedastic(n: int, seed: int):
    """Labels with noise that grows with |x|, and intervals that are too narrow and lopsided."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    scale = 0.2 + x.abs()
    labels = x + scale * torch.randn(n, generator=generator, dtype=torch.float64)
    return x - 0.8 * scale, x + 0.4 * scale, labels


@pytest.mark.parametrize("name", CONFORMAL_INTERVALS)
@pytest.mark.parametrize("error", [0.1, 0.4])
def test_coverage_over_splits(name: str, error: float):
    """Mean coverage over 400 splits of 59 + 200: 1 - error to 1 - error + 1/60, up to three standard errors."""
    hits: list[float] = []
    for seed in range(400):
        lower, upper, labels = heteroscedastic(259, seed)
        g = CONFORMAL_INTERVALS[name](lower[:59], upper[:59], labels[:59], error=error)
        low, high = g(lower[59:], upper[59:])
        hits.append(((low <= labels[59:]) & (labels[59:] <= high)).double().mean().item())
    found = torch.tensor(hits)
    three = 3 * found.std().item() / math.sqrt(len(hits))
    assert 1 - error - three <= found.mean().item() <= 1 - error + 1 / 60 + three


@pytest.mark.parametrize("name", CONFORMAL_INTERVALS)
def test_the_fitting_samples_are_covered_as_the_order_statistic_says(name: str):
    lower, upper, labels = heteroscedastic(99, 1)
    g = CONFORMAL_INTERVALS[name](lower, upper, labels, error=0.1)
    low, high = g(lower, upper)
    assert int(((low <= labels + 1e-12) & (labels <= high + 1e-12)).sum()) == 90


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1.0, -3.1, 1e6])
def test_coverage_holds_for_tied_labels_in_any_dtype(dtype: torch.dtype, offset: float):
    """Labels in tenths, most of them the largest: their score is q, and a rounding inwards would lose them all."""
    hits: list[float] = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        top = 1 + seed % 9  # 0.1, 0.2 ... 0.9: some of them are rounded up, some down
        steps = torch.where(torch.rand(219, generator=generator) < 0.3, top - 1, top)
        labels = offset + steps.double() / 10 * (1 if seed % 2 else -1)
        ends = torch.full((219,), offset if dtype.itemsize > 2 else 0.5).to(dtype)
        g = cqr.fit(ends[:19], ends[:19], labels[:19], error=0.1)
        low, high = g(ends[19:], ends[19:])
        hits.append(((low <= labels[19:]) & (labels[19:] <= high)).double().mean().item())
        assert low.dtype == high.dtype == dtype
    found = torch.tensor(hits)
    assert found.mean().item() >= 0.9 - 3 * found.std().item() / math.sqrt(len(hits))


@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 3), min_size=1, max_size=20))
@settings(derandomize=True, deadline=None)
def test_fitting_samples_are_covered_to_the_last_digit(samples: list[tuple[float, float, float]]):
    """Whatever the ends: as many of the fitting samples hold their label as the order statistic says, exactly."""
    lower, upper, labels = torch.tensor(samples, dtype=torch.float64).unbind(1)
    for low, high in ((lower, upper), (lower.float(), upper.float())):
        g = cqr.fit(low, high, labels, error=0.3)
        low, high = g(low, high)
        inside = int(((low <= labels) & (labels <= high)).sum())
        assert inside >= min(len(labels), math.ceil(Fraction(7, 10) * (len(labels) + 1)))


def test_golden_number():
    # scores max(l - y, y - u): -0.5 0.25 0.5 2.0; error 0.4 of 4: the 3rd
    g = cqr.fit(torch.zeros(4), torch.ones(4), torch.tensor([0.5, 1.25, -0.5, 3.0]), error=0.4)
    assert g.quantile.item() == 0.5
    assert cqr.fit(torch.zeros(4), torch.ones(4), torch.full((4,), 0.5), error=0.4).quantile.item() == -0.5


def test_too_few_samples_give_everything_and_wide_intervals_shrink():
    g = cqr.fit(torch.zeros(3), torch.ones(3), torch.zeros(3), error=0.1)
    low, high = g(torch.zeros(2), torch.ones(2))
    assert low.tolist() == [-math.inf] * 2
    assert high.tolist() == [math.inf] * 2
    g = cqr.fit(torch.full((9,), -5.0), torch.full((9,), 5.0), torch.zeros(9), error=0.2)
    low, high = g(torch.tensor([-6.0, -1.0]), torch.tensor([6.0, 3.0]))
    assert low.tolist() == [-1.0, 1.0]  # the second would cross: its middle
    assert high.tolist() == [1.0, 1.0]


def test_it_saves_and_keeps_the_dtype(tmp_path):
    lower, upper, labels = heteroscedastic(50, 2)
    g = cqr.fit(lower, upper, labels)
    fitted.save(g, tmp_path / "g.safetensors")
    assert fitted.load(cqr.CQR, tmp_path / "g.safetensors").quantile == g.quantile
    low, high = g(lower.float(), upper.float())
    assert low.dtype == high.dtype == torch.float32


def test_what_cannot_be_is_refused():
    one = torch.ones(3)
    with pytest.raises(OptionError, match="error"):
        cqr.fit(one, one, one, error=0.0)
    with pytest.raises(DataError, match="lower: expected finite"):
        cqr.fit(one * math.nan, one, one)
    with pytest.raises(DataError, match=r"lower: expected \(n,\)"):
        cqr.fit(torch.ones(0), torch.ones(0), torch.ones(0))
