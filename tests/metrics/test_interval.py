"""Bootstrap intervals: they have the spread that theory gives, and hold the truth as often as they say."""

from functools import partial

import pytest
import torch

from caveat.errors import DataError, OptionError
from caveat.metrics import OF_BINS, OF_RANKING
from caveat.metrics.calibration import Bins, classwise_bins, ece
from caveat.metrics.interval import interval, interval_of_ece, interval_of_mean, intervals
from caveat.metrics.ranking import auroc, fpr_at_tpr
from caveat.metrics.selective import aurc
from caveat.metrics.tally import Tally, tally, tally_sets


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def overlapping(n: int, seed: int) -> Tally:
    g = generator(seed)
    return tally_sets(
        torch.randn(n, generator=g, dtype=torch.float64), torch.randn(n, generator=g, dtype=torch.float64) + 1
    )


def test_auroc_has_the_spread_of_theory() -> None:
    # Hanley & McNeil for scores that are normal a unit apart would differ; the exact (DeLong) variance is used.
    counted = overlapping(800, 3)
    got = interval(auroc, counted, generator=generator(), replicas=1000)
    below = (counted.negative.cumsum(0) - counted.negative / 2) / 800
    above = 1 - (counted.positive.cumsum(0) - counted.positive / 2) / 800
    variance = (below[counted.positive > 0].var() + above[counted.negative > 0].var()) / 800
    assert got.value == auroc(counted).item()
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * variance.sqrt().item(), rel=0.1)
    assert got.low < got.value < got.high


def test_auroc_is_held_as_often_as_said() -> None:
    truth = torch.special.ndtr(torch.tensor(0.5**0.5, dtype=torch.float64)).item()  # P(N(1,1) > N(0,1))
    held = 0
    for seed in range(150):
        got = interval(auroc, overlapping(100, seed), generator=generator(seed), replicas=100)
        held += got.low <= truth <= got.high
    assert 0.88 <= held / 150 <= 0.99


def test_several_metrics_from_the_same_replicas() -> None:
    counted = overlapping(100, 0)
    together = intervals(OF_RANKING, counted, generator=generator(5))
    assert list(together) == list(OF_RANKING)
    for name, metric in OF_RANKING.items():
        assert together[name] == interval(metric, counted, generator=generator(5))
    tight = interval(partial(fpr_at_tpr, tpr=0.5), counted, generator=generator(5))
    assert tight.value == fpr_at_tpr(counted, 0.5).item()


def test_selective_intervals_know_that_the_accuracy_varies() -> None:
    # All scores equal: AURC is the error rate, and its spread is the binomial one; stratified it is none.
    counted = tally(torch.zeros(400), torch.arange(400) < 80)
    free = interval(aurc, counted, generator=generator(), replicas=1000, stratified=False)
    assert (free.high - free.low) / 2 == pytest.approx(1.96 * (0.2 * 0.8 / 400) ** 0.5, rel=0.12)
    kept = interval(aurc, counted, generator=generator())
    assert kept.high - kept.low < 1e-12


@pytest.mark.parametrize("n", [500, 400_000])  # the latter is drawn by 65,536 and scaled
def test_mean_has_the_spread_of_theory(n: int) -> None:
    values = torch.rand(n, generator=generator(), dtype=torch.float64)
    got = interval_of_mean(values, generator=generator(1), replicas=400)
    assert got.value == values.mean().item()
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * (values.var() / n).sqrt().item(), rel=0.15)


def test_levels_are_nested() -> None:
    values = torch.rand(100, generator=generator(), dtype=torch.float64)
    wide, narrow = (interval_of_mean(values, generator=generator(), level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def calibrated_bins(n: int, off: float, seed: int) -> Bins:
    """Ten confidences 0.55..1; each answer is right with its confidence less `off`."""
    confidence = torch.linspace(0.55, 1, 10, dtype=torch.float64)
    count = torch.full((10,), n / 10, dtype=torch.float64)
    hits = torch.binomial(count, confidence - off, generator=generator(seed))
    return Bins(count, count * confidence, hits)


@pytest.mark.parametrize("off", [0.0, 0.02, 0.1])
def test_ece_is_held_as_often_as_said(off: float) -> None:
    # Plain percentiles hold the ECE of a calibrated network never (0 of 400 runs); that is why ours are other ones.
    held = inside = 0
    for seed in range(100):
        got = interval_of_ece(calibrated_bins(1000, off, seed), generator=generator(seed), replicas=100)
        held += got.low <= off <= got.high
        inside += got.low <= got.value <= got.high
    assert inside == 100
    assert held >= 93


def test_ece_interval_of_a_calibrated_network_begins_at_zero_and_does_not_count_the_noise_twice() -> None:
    # The replicas' ECE is about 2^.5 times the value here; their upper percentile must not carry that rise.
    rises = []
    for seed in range(20):
        got = interval_of_ece(calibrated_bins(1000, 0.0, seed), generator=generator(seed))
        assert got.low == 0
        rises.append((got.high - got.value) / got.value)
    assert 0.4 < sum(rises) / 20 < 1


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
    values, counted, bins = torch.arange(50.0).double(), overlapping(30, 0), calibrated_bins(100, 0.1, 0)
    state = torch.get_rng_state()
    for call in (
        lambda g: interval_of_mean(values, generator=g),
        lambda g: interval(auroc, counted, generator=g),
        lambda g: interval_of_ece(bins, generator=g),
    ):
        assert call(generator(1)) == call(generator(1)) != call(generator(2))
    assert torch.equal(state, torch.get_rng_state())


def test_mistakes_are_refused() -> None:
    values, counted, bins = torch.arange(50.0).double(), overlapping(30, 0), calibrated_bins(100, 0.1, 0)
    for call in (
        partial(interval_of_mean, values),
        partial(interval, auroc, counted),
        partial(interval_of_ece, bins),
    ):
        for level in (0.0, 1.0, 95.0):
            with pytest.raises(OptionError, match="level: expected a share"):
                call(generator=generator(), level=level)
        with pytest.raises(OptionError, match="replicas: expected at least 1"):
            call(generator=generator(), replicas=0)
    with pytest.raises(DataError, match="values: expected at least one"):
        interval_of_mean(values[:0], generator=generator())
    rows = classwise_bins(torch.full((2, 2), 0.5), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="one row of bins"):
        interval_of_ece(rows, generator=generator())
