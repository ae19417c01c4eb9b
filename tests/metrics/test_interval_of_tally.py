"""Intervals of ranking and selective metrics: the variance of theory, never of width zero, too few is said."""

from functools import partial

import pytest
import torch

from caveat.errors import DataError, OptionError
from caveat.metrics.interval import FEW
from caveat.metrics.interval_of_tally import interval_of_fpr, interval_of_ranking, interval_of_selective
from caveat.metrics.ranking import aupr_in, aupr_out, auroc, detection_error, fpr_at_tpr
from caveat.metrics.selective import augrc, aurc
from caveat.metrics.tally import Tally, resample, tally, tally_sets


def overlapping(n: int, seed: int, shift: float = 1.0) -> Tally:
    g = torch.Generator().manual_seed(seed)
    known, ood = (torch.randn(n, generator=g, dtype=torch.float64) for _ in range(2))
    return tally_sets(known, ood + shift)


def test_auroc_has_delongs_variance() -> None:
    counted = overlapping(800, 3)
    got = interval_of_ranking(auroc, counted)
    assert got is not None
    below = (counted.negative.cumsum(0) - counted.negative / 2) / 800
    above = 1 - (counted.positive.cumsum(0) - counted.positive / 2) / 800
    variance = (below[counted.positive > 0].var() + above[counted.negative > 0].var()) / 800
    assert got.value == auroc(counted).item()
    assert (got.high - got.low) / 2 == pytest.approx(1.961 * variance.sqrt().item(), rel=0.01)


@pytest.mark.parametrize("metric", [aupr_in, aupr_out])
def test_aupr_has_the_spread_of_the_bootstrap(metric: object) -> None:
    counted = overlapping(800, 3)
    got = interval_of_ranking(metric, counted)  # pyright: ignore[reportArgumentType]  # one of two functions
    assert got is not None
    drawn = metric(resample(counted, replicas=1000, generator=torch.Generator().manual_seed(0)))  # pyright: ignore[reportCallIssue]
    assert (got.high - got.low) / 2 == pytest.approx(1.961 * drawn.std().item(), rel=0.08)


@pytest.mark.parametrize("metric", [aurc, augrc])
def test_selective_intervals_know_that_the_accuracy_varies(metric: object) -> None:
    # All scores equal: AURC is the error rate e, its spread the binomial one; AUGRC is half of it.
    counted = tally(torch.zeros(4000), torch.arange(4000) < 800)
    got = interval_of_selective(metric, counted)  # pyright: ignore[reportArgumentType]
    assert got is not None
    half = 1.963 * (0.2 * 0.8 / 4000) ** 0.5 / (1 if metric is aurc else 2)
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize("metric", [auroc, aupr_in, aupr_out])
def test_perfect_and_useless_scores_have_intervals_too(metric: object) -> None:
    for n in (FEW, 50, 5000):
        perfect = tally_sets(torch.arange(n).double(), n + torch.arange(n).double())
        got = interval_of_ranking(metric, perfect)  # pyright: ignore[reportArgumentType]
        assert got is not None
        assert got.value == got.high == 1.0
        # Wilson's at 1 with Newcombe's 2n samples: 1 - z²/(2n + z²), about.
        assert 1 - got.low == pytest.approx(3.84 / (2 * n + 3.84), rel=0.2)
        tied = interval_of_ranking(metric, tally_sets(torch.zeros(n), torch.zeros(n)))  # pyright: ignore[reportArgumentType]
        assert tied is not None
        assert tied.low < tied.value == 0.5 < tied.high


def test_aupr_of_the_many_is_less_uncertain_than_that_of_the_few() -> None:
    perfect = tally_sets(torch.arange(2000).double(), 2000 + torch.arange(20).double())
    many, few = interval_of_ranking(aupr_in, perfect), interval_of_ranking(aupr_out, perfect)
    assert many is not None
    assert few is not None
    assert (1 - many.low) < 0.05 * (1 - few.low)


def test_of_more_others_than_sought_aupr_is_as_uncertain_as_auroc() -> None:
    perfect = tally_sets(torch.arange(30).double(), 100 + torch.arange(90).double())
    assert interval_of_ranking(aupr_in, perfect) == interval_of_ranking(auroc, perfect)


def test_fpr_at_the_first_of_the_scores() -> None:
    # tpr 0.05 of 100: the order statistics are 5 ± 4.27, so 0.728 of the way to the first, below which half of the OOD
    # lie; beside Wilson's 0.5 - 0.031.
    ood = torch.cat((torch.full((500,), -1.0), torch.full((500,), 200.0))).double()
    got = interval_of_fpr(tally_sets(torch.arange(100).double(), ood), tpr=0.05)
    assert got is not None
    assert got.low == pytest.approx(0.5 - (0.0309**2 + (0.5 - 0.728 * 0.5) ** 2) ** 0.5, abs=1e-3)


def test_fpr_counts_the_threshold_and_the_samples() -> None:
    # A million in-distribution scores: the threshold is known, and Wilson's interval of the OOD share remains.
    ood = torch.linspace(0, 2, 101, dtype=torch.float64)
    got = interval_of_fpr(tally_sets(torch.linspace(0, 1, 1_000_000, dtype=torch.float64), ood))
    assert got is not None
    assert got.value == 48 / 101
    assert (got.low, got.high) == pytest.approx((0.3805, 0.5719), abs=2e-3)
    # As many OOD scores: what remains is the threshold, 0.95 ± 1.96 (0.0475/100)^½ of uniform scores, halved.
    ood = torch.linspace(0, 2, 1_000_001, dtype=torch.float64)
    got = interval_of_fpr(tally_sets(torch.linspace(0, 1, 101, dtype=torch.float64), ood))
    assert got is not None
    assert got.high - got.low == pytest.approx(2 * 1.96 * (0.0475 / 101) ** 0.5 / 2, rel=0.03)


def test_fpr_of_sets_apart_is_one_sided() -> None:
    got = interval_of_fpr(tally_sets(torch.arange(200).double(), 1000 + torch.arange(50).double()))
    assert got is not None
    assert got.low == got.value == 0
    assert got.high == pytest.approx(3.84 / 53.84, rel=0.01)  # Wilson's at 0 of 50
    few = interval_of_fpr(tally_sets(torch.arange(40).double(), 1000 + torch.arange(50).double()))
    assert few is not None
    assert few.high == 1  # the threshold that keeps 95 % may lie beyond all of 40 scores


def test_large_tallies_have_the_value_inside() -> None:
    # Replicas of 1,024 joined cells put the whole interval above the value.
    counted = overlapping(100_000, 1, shift=2.0)
    got = interval_of_fpr(counted)
    assert got is not None
    assert got.value == fpr_at_tpr(counted).item()
    assert ((got.low + got.high) / 2 - got.value) / (got.high - got.low) == pytest.approx(0, abs=0.1)


def test_too_few_on_a_side_is_said() -> None:
    few = tally_sets(torch.arange(100).double(), torch.arange(FEW - 1).double())
    enough = tally_sets(torch.arange(100).double(), torch.arange(FEW).double())
    for interval in (partial(interval_of_ranking, auroc), partial(interval_of_selective, aurc), interval_of_fpr):
        assert interval(few) is None
        assert interval(enough) is not None


def test_nothing_of_the_callers_world_changes() -> None:
    with torch.inference_mode():
        counted = overlapping(50, 0)
        assert interval_of_ranking(auroc, counted) is not None
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert interval_of_ranking(auroc, overlapping(50, 0)) == interval_of_ranking(auroc, counted)
    assert not counted.negative.requires_grad


def test_mistakes_are_refused() -> None:
    counted = overlapping(50, 0)
    replicas = resample(counted, replicas=3, generator=torch.Generator().manual_seed(0))
    calls = (partial(interval_of_ranking, auroc), partial(interval_of_selective, aurc), interval_of_fpr)
    for call in calls:
        with pytest.raises(OptionError, match="level: expected a share"):
            call(counted, level=95.0)
    for call in calls:
        with pytest.raises(DataError, match="without replicas, got 3"):
            call(replicas)
    with pytest.raises(OptionError, match="metric: expected auroc"):
        interval_of_ranking(detection_error, counted)
    with pytest.raises(OptionError, match="metric: expected aurc"):
        interval_of_selective(fpr_at_tpr, counted)
