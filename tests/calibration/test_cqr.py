"""Conformalised quantile regression: what it promises over many splits, and what it adds to an interval."""

import math

import pytest
import torch

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
