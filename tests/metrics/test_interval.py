"""Intervals of shares, means and calibration errors: the spread that theory gives, and the right value at the edges.

How often they hold the truth is simulated in test_coverage.py.
"""

import math
from functools import partial

import pytest
import torch

from caveat.errors import DataError, OptionError
from caveat.metrics import OF_BINS
from caveat.metrics.calibration import Bins, classwise_bins, ece
from caveat.metrics.interval import FEW, interval_of_ece, interval_of_mean, interval_of_share, t_quantile, wilson


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_wilson_ends_are_where_the_test_just_does_not_refuse() -> None:
    for share, size in ((0.3, 40.0), (0.98, 12.5), (0.0, 20.0), (1.0, 7.0)):
        got = wilson(share, size, 1.96)
        for end in {got.low, got.high} - {0.0, 1.0}:
            assert abs(share - end) == pytest.approx(1.96 * (end * (1 - end) / size) ** 0.5)
        assert got.low < got.high
    assert interval_of_share(3, 3).high == 1.0


def test_student_quantile() -> None:
    assert t_quantile(1, 0.5) == pytest.approx(1.0)  # of a Cauchy variable: tan(π/4)
    assert t_quantile(10, 0.95) == pytest.approx(2.228139, abs=1e-6)  # any printed table


def test_mean_of_symmetric_losses_is_students_interval() -> None:
    losses = torch.rand(500, generator=generator(), dtype=torch.float64)
    losses = torch.cat((losses, 1 - losses))  # without skewness
    got = interval_of_mean(losses)
    assert got is not None
    half = t_quantile(999, 0.95) * losses.std().item() / 1000**0.5
    assert (got.low, got.value, got.high) == pytest.approx((0.5 - half, 0.5, 0.5 + half))


def test_mean_of_skewed_losses_reaches_as_far_as_halls_transformation_says() -> None:
    losses = torch.cat((torch.zeros(80), torch.ones(20))).double() + 0.1
    got = interval_of_mean(losses)
    assert got is not None
    # Skewness (1 - 2p)/(p(1 - p))^½ = 1.5; the ends t solve g(t) = ∓ t_99, found here by bisection of g itself.
    spread, skew, n = 0.4, 1.5, 100

    def g(t: float) -> float:
        return t + skew * t**2 / (3 * n**0.5) + skew**2 * t**3 / (27 * n) + skew / (6 * n**0.5)

    for end, target in ((got.low, 1), (got.high, -1)):
        assert g((got.value - end) * (n - 1) ** 0.5 / spread) == pytest.approx(target * t_quantile(99, 0.95))
    assert got.high - got.value > 1.2 * (got.value - got.low)


def test_a_mean_that_few_samples_carry_has_no_interval() -> None:
    rare = torch.zeros(1000, dtype=torch.float64)
    rare[: FEW - 1] = 1.0
    assert interval_of_mean(rare) is None
    rare[FEW - 1] = 1.0
    assert interval_of_mean(rare) is not None
    assert interval_of_mean(torch.zeros(1000).double()) is None
    assert interval_of_mean(torch.full((20,), 0.5).double()) == (0.5, 0.5, 0.5)


def test_levels_are_nested() -> None:
    losses = torch.rand(100, generator=generator(), dtype=torch.float64) ** 3
    wide, narrow = interval_of_mean(losses, level=0.99), interval_of_mean(losses, level=0.5)
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < narrow.high < wide.high


def calibrated_bins(n: int, off: float, seed: int) -> Bins:
    """Ten confidences 0.55..1; each answer is right with its confidence less `off`."""
    confidence = torch.linspace(0.55, 1, 10, dtype=torch.float64)
    count = torch.full((10,), n / 10, dtype=torch.float64)
    hits = torch.binomial(count, confidence - off, generator=generator(seed))
    return Bins(count, count * confidence, hits)


def test_ece_of_bins_without_mistakes_has_the_rule_of_three() -> None:
    # 200 answers of confidence 1, all right: a mistake is seen in all but 0.75 % of the sets where -log 0.0075 are
    # expected (Poisson).
    bins = Bins(*(torch.tensor([200.0], dtype=torch.float64) for _ in range(3)))
    got = interval_of_ece(bins, generator=generator(), replicas=2000)
    assert got.low == got.value == 0
    assert got.high == pytest.approx(-math.log(0.0075) / 200, rel=0.1)


def test_ece_interval_of_a_calibrated_network_begins_at_zero() -> None:
    got = [interval_of_ece(calibrated_bins(1000, 0.0, seed), generator=generator(seed)) for seed in range(20)]
    assert sum(item.low == 0 for item in got) >= 18
    assert all(item.low <= item.value <= item.high for item in got)


def test_ece_interval_of_one_bin_is_that_of_a_share() -> None:
    # A gap of 0.3 is far from 0: the ends are those of a share, one-sided at 3.5 % below and 0.75 % above.
    bins = Bins(*(torch.tensor([value], dtype=torch.float64) for value in (400.0, 360.0, 240.0)))
    got = interval_of_ece(bins, generator=generator(), replicas=2000)
    spread = (0.6 * 0.4 / 400) ** 0.5
    assert got.low == pytest.approx(0.3 - 1.812 * spread, abs=0.1 * spread)
    assert got.high == pytest.approx(0.3 + 2.432 * spread, abs=0.2 * spread)


def test_ece_interval_narrows_with_the_data() -> None:
    small, large = (interval_of_ece(calibrated_bins(n, 0.1, 0), generator=generator()) for n in (1000, 100_000))
    assert (small.high - small.low) / (large.high - large.low) == pytest.approx(10, rel=0.5)
    assert large.low > 0.09
    assert large.high < 0.11


@pytest.mark.parametrize("name", ["mce", "rmsce"])
def test_other_norms_of_bins(name: str) -> None:
    got = interval_of_ece(calibrated_bins(5000, 0.1, 0), generator=generator(), metric=OF_BINS[name])
    assert got.value == OF_BINS[name](calibrated_bins(5000, 0.1, 0)).item()
    assert got.low <= 0.1 <= got.high
    assert got != interval_of_ece(calibrated_bins(5000, 0.1, 0), generator=generator(), metric=ece)


def test_the_generator_decides_alone() -> None:
    bins = calibrated_bins(100, 0.1, 0)
    state = torch.get_rng_state()
    first, again, other = (interval_of_ece(bins, generator=generator(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(state, torch.get_rng_state())


def test_mistakes_are_refused() -> None:
    losses, bins = torch.arange(50.0).double(), calibrated_bins(100, 0.1, 0)
    for call in (
        partial(interval_of_mean, losses),
        partial(interval_of_share, 1, 2),
        partial(interval_of_ece, bins, generator=generator()),
    ):
        for level in (0.0, 1.0, 95.0):
            with pytest.raises(OptionError, match="level: expected a share"):
                call(level=level)
    with pytest.raises(OptionError, match="replicas: expected at least 1"):
        interval_of_ece(bins, generator=generator(), replicas=0)
    with pytest.raises(DataError, match="losses: expected at least one"):
        interval_of_mean(losses[:0])
    with pytest.raises(DataError, match="losses: expected values of at least 0, got -1"):
        interval_of_mean(losses - 1)
    rows = classwise_bins(torch.full((2, 2), 0.5), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="one row of bins"):
        interval_of_ece(rows, generator=generator())
    with pytest.raises(DataError, match="hits: expected 0 to 3"):
        interval_of_share(4, 3)
