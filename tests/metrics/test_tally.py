"""Counting scores: exact, in bins, merged, mirrored, compressed and resampled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.errors import DataError, OptionError
from caveat.metrics import _check
from caveat.metrics._resampling import multinomial
from caveat.metrics.ranking import auroc, fpr_at_tpr
from caveat.metrics.tally import (
    Tally,
    compress,
    histogram_tally,
    merge,
    mirror,
    quantile_edges,
    resample,
    tally,
    tally_sets,
)

PROPERTY = settings(derandomize=True, deadline=None, max_examples=50)
SAMPLES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=40)


def counted(samples: list[tuple[int, bool]]) -> Tally:
    scores, positive = zip(*samples, strict=True)
    return tally(torch.tensor(scores, dtype=torch.float64) / 3, torch.tensor(positive))


def same(first: Tally, second: Tally) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in (
            (first.values, second.values),
            (first.negative, second.negative),
            (first.positive, second.positive),
        )
    )


def random_scores(n: int = 5000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n, generator=generator) < 0.3
    return torch.randn(n, generator=generator) + positive, positive


def test_golden() -> None:
    # Scores 2, -1, 2, 0, 2 with marks 0, 0, 1, 1, 0: at 2 two negatives and one positive.
    got = tally(torch.tensor([2.0, -1, 2, 0, 2]), torch.tensor([False, False, True, True, False]))
    assert got.values.tolist() == [-1, 0, 2]
    assert got.negative.tolist() == [1, 0, 2]
    assert got.positive.tolist() == [0, 1, 1]
    assert got.values.dtype == got.negative.dtype == got.positive.dtype == torch.float64


@PROPERTY
@given(SAMPLES)
def test_agrees_with_numpy(samples: list[tuple[int, bool]]) -> None:
    got = counted(samples)
    for side, mark in ((got.negative, False), (got.positive, True)):
        values, counts = np.unique([score / 3 for score, m in samples if m == mark], return_counts=True)
        assert dict(zip(got.values[side > 0].tolist(), side[side > 0].tolist(), strict=True)) == dict(
            zip(values.tolist(), counts.tolist(), strict=True)
        )


@PROPERTY
@given(SAMPLES, st.randoms(use_true_random=False))
def test_order_is_irrelevant(samples: list[tuple[int, bool]], random) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert same(counted(samples), counted(shuffled))


@PROPERTY
@given(SAMPLES, SAMPLES)
def test_merging_is_counting_at_once(first: list[tuple[int, bool]], second: list[tuple[int, bool]]) -> None:
    assert same(merge(counted(first), counted(second)), counted(first + second))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_are_counted_exactly(dtype: torch.dtype) -> None:
    scores, positive = random_scores(500)
    assert same(tally(scores.to(dtype), positive), tally(scores.to(dtype).double(), positive))


def test_dense_is_flattened_and_gradients_are_ignored() -> None:
    scores, positive = random_scores(600)
    dense = scores.reshape(6, 10, 10).requires_grad_()
    got = tally(dense, positive.reshape(6, 10, 10))
    assert same(got, tally(scores, positive))
    assert not got.values.requires_grad


def test_two_sets_are_one_marked_set() -> None:
    scores, positive = random_scores(300)
    assert same(tally_sets(scores[~positive], scores[positive]), tally(scores, positive))
    alone = tally_sets(scores, scores[:0])
    assert alone.positive.sum() == 0
    assert alone.negative.sum() == 300


def test_histogram_golden() -> None:
    # Bins ]-inf, 0], ]0, 1], ]1, inf]: an edge belongs to the bin below it.
    scores = torch.tensor([-3.0, 0.0, 0.5, 1.0, 1.5, 9.0])
    positive = torch.tensor([False, True, False, False, True, True])
    got = histogram_tally(scores, positive, edges=torch.tensor([0.0, 1.0]))
    assert got.values.tolist() == [0, 1, float("inf")]
    assert got.negative.tolist() == [1, 2, 0]
    assert got.positive.tolist() == [1, 0, 2]


def test_histogram_is_near_exact_and_of_fixed_size() -> None:
    scores, positive = random_scores(20_000)
    edges = quantile_edges(scores[:5000], bins=1024)
    parts = [histogram_tally(s, p, edges=edges) for s, p in zip(scores.split(3000), positive.split(3000), strict=True)]
    streamed = parts[0]
    for part in parts[1:]:
        streamed = merge(streamed, part)
    assert streamed.values.numel() == 1025
    assert same(streamed, histogram_tally(scores, positive, edges=edges))
    assert auroc(streamed).item() == pytest.approx(auroc(tally(scores, positive)).item(), abs=1e-5)


def test_histogram_thresholds_split_the_scores_exactly() -> None:
    scores, positive = random_scores(2000)
    got = histogram_tally(scores, positive, edges=quantile_edges(scores, bins=64))
    for cell in (0, 20, 63):
        accepted = (scores.double() <= got.values[cell]) & ~positive
        assert got.negative[: cell + 1].sum() == accepted.sum()


def test_quantile_edges_share_the_samples_equally() -> None:
    scores = torch.arange(100.0)
    assert quantile_edges(scores, bins=4).tolist() == [24, 49, 74, 99]
    assert quantile_edges(torch.zeros(9), bins=4).tolist() == [0]


def test_mirror_twice_is_the_same_and_once_swaps_the_sides() -> None:
    scores, positive = random_scores(500)
    once = mirror(tally(scores, positive))
    assert same(once, tally(-scores, ~positive))
    assert same(mirror(once), tally(scores, positive))


def test_fpr_of_the_mirror_is_the_other_convention() -> None:
    # Catch at least 75 % of the OOD 3, 5, 7, 9: reject from 5 on. Known 1, 4, 5, 6: 5 and 6 are lost.
    other = mirror(tally_sets(torch.tensor([1.0, 4, 5, 6]), torch.tensor([3.0, 5, 7, 9])))
    assert fpr_at_tpr(other, 0.75).item() == 0.5


def test_compress_keeps_counts_and_thresholds() -> None:
    scores, positive = random_scores(20_000)
    exact = tally(scores, positive)
    small = compress(exact, bins=100)
    assert 90 <= small.values.numel() <= 100
    assert small.negative.sum() == exact.negative.sum()
    assert small.positive.sum() == exact.positive.sum()
    for cell in range(0, small.values.numel(), 13):
        below = exact.values <= small.values[cell]
        assert small.negative[: cell + 1].sum() == exact.negative[below].sum()
        assert small.positive[: cell + 1].sum() == exact.positive[below].sum()
    share = (small.negative / small.negative.sum() + small.positive / small.positive.sum()) / 2
    assert share.max() < 0.0105


def test_compress_drops_empty_cells() -> None:
    scores = torch.tensor([0.5, 2.5])
    got = compress(histogram_tally(scores, torch.tensor([False, True]), edges=torch.tensor([0.0, 1, 2, 3])))
    assert got.values.tolist() == [1, 3]
    negative, positive = torch.tensor([[0.0, 3, 1, 0, 0, 0], [0, 0, 0, 0, 2, 2]]).double()
    joined = compress(Tally(torch.arange(6).double(), negative, positive), bins=4)
    assert joined.values.tolist() == [3, 4, 5]  # nothing is left of the first, which holds no sample


@pytest.mark.parametrize("scale", [1, 400])  # 1: drawn one by one; 400: down the tree
def test_multinomial_moments(scale: int) -> None:
    counts = torch.tensor([3.0, 0, 1, 6, 0, 2, 8], dtype=torch.float64) * scale
    n, p = counts.sum(), counts / counts.sum()
    drawn = multinomial(counts, replicas=20_000, generator=torch.Generator().manual_seed(0))
    assert (drawn.sum(1) == n).all()
    assert (drawn[:, counts == 0] == 0).all()
    deviation = (n * p * (1 - p)).sqrt()
    assert ((drawn.mean(0) - counts).abs() <= 4 * deviation / 20_000**0.5).all()
    expected = torch.diag(n * p) - n * torch.outer(p, p)
    assert torch.cov(drawn.T).sub(expected).abs().max() < 0.05 * n * p.max()


def test_both_ways_to_draw_have_the_same_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([4.0, 6, 2], dtype=torch.float64)
    one_by_one = multinomial(counts, replicas=40_000, generator=generator)
    from caveat.metrics import _resampling

    few, _resampling._FEW = _resampling._FEW, 0
    try:
        tree = multinomial(counts, replicas=40_000, generator=generator)
    finally:
        _resampling._FEW = few
    for cell in range(3):
        a, b = (x[:, cell].long().bincount(minlength=13) / 40_000 for x in (one_by_one, tree))
        assert (a - b).abs().max() < 0.015


def test_resample_keeps_sides_or_only_the_total() -> None:
    exact = tally(*random_scores(1000))
    generator = torch.Generator().manual_seed(1)
    kept = resample(exact, replicas=50, generator=generator)
    assert (kept.negative.sum(1) == exact.negative.sum()).all()
    assert (kept.positive.sum(1) == exact.positive.sum()).all()
    free = resample(exact, replicas=50, generator=generator, stratified=False)
    assert ((free.negative + free.positive).sum(1) == 1000).all()
    assert free.positive.sum(1).std() == pytest.approx((1000 * 0.3 * 0.7) ** 0.5, rel=0.3)


def test_resample_is_decided_by_the_generator_alone() -> None:
    exact = tally(*random_scores(200))
    state = torch.get_rng_state()
    first, second, third = (
        resample(exact, replicas=5, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert same(first, second)
    assert not same(first, third)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match=r"scores: expected finite values, got 1 NaN or infinite of 2"):
        tally(torch.tensor([0.0, bad]), torch.tensor([False, True]))


def test_other_mistakes_are_refused() -> None:
    none = torch.zeros(0)
    with pytest.raises(DataError, match="scores: expected at least one"):
        tally(none, none.bool())
    with pytest.raises(DataError, match="scores: expected at least one"):
        tally_sets(none, none)
    with pytest.raises(DataError, match="edges: expected strictly ascending"):
        histogram_tally(torch.zeros(1), torch.tensor([True]), edges=torch.tensor([1.0, 1.0]))
    with pytest.raises(OptionError, match="replicas"):
        resample(tally(torch.zeros(1), torch.tensor([True])), replicas=0, generator=torch.Generator())
    with pytest.raises(DataError, match="replicas"):
        compress(resample(tally(*random_scores(9)), replicas=2, generator=torch.Generator()))
    with pytest.raises(DataError, match="positive: expected the shape of scores"):
        _check.pair("scores", torch.zeros(3), "positive", torch.zeros(2))
