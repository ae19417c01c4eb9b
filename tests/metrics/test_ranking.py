"""Ranking metrics against scikit-learn, by hand, and by their theorems."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from caveat.errors import DataError, OptionError
from caveat.metrics import OF_RANKING
from caveat.metrics._curve import simplify
from caveat.metrics.ranking import (
    aupr_in,
    aupr_out,
    auroc,
    detection_error,
    fpr_at_tpr,
    precision_recall_curve,
    quantile_threshold,
    roc_curve,
    shares_accepted,
    youden_threshold,
)
from caveat.metrics.tally import Tally, histogram_tally, mirror, resample, tally, tally_sets

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)
SIDE = st.lists(st.integers(-4, 4), min_size=1, max_size=25)  # few distinct values: many ties


def sets(known: list[int], ood: list[int]) -> tuple[Tally, np.ndarray, np.ndarray]:
    scores = np.array(known + ood, dtype=float)
    marks = np.array([False] * len(known) + [True] * len(ood))
    return tally(torch.from_numpy(scores), torch.from_numpy(marks)), scores, marks


def overlapping(n: int, seed: int = 0) -> Tally:
    generator = torch.Generator().manual_seed(seed)
    return tally_sets(torch.randn(n, generator=generator), torch.randn(2 * n, generator=generator) + 1)


@PROPERTY
@given(SIDE, SIDE)
def test_equals_scikit_learn_with_ties(known: list[int], ood: list[int]) -> None:
    counted, scores, marks = sets(known, ood)
    assert auroc(counted).item() == pytest.approx(peer.roc_auc_score(marks, scores), abs=1e-12)
    assert aupr_out(counted).item() == pytest.approx(peer.average_precision_score(marks, scores), abs=1e-12)
    assert aupr_in(counted).item() == pytest.approx(peer.average_precision_score(~marks, -scores), abs=1e-12)
    # scikit-learn's first threshold accepts nothing; -scores >= -t is scores <= t.
    passed, kept, _ = peer.roc_curve(~marks, -scores, drop_intermediate=False)
    assert fpr_at_tpr(counted, 0.8).item() == pytest.approx(passed[np.argmax(kept >= 0.8 - 1e-9)], abs=1e-12)
    assert detection_error(counted).item() == pytest.approx(np.min(1 - kept + passed) / 2, abs=1e-12)


@PROPERTY
@given(SIDE, SIDE)
def test_curves_have_scikit_learns_vertices(known: list[int], ood: list[int]) -> None:
    counted, scores, marks = sets(known, ood)
    x, y = roc_curve(counted)
    lost, caught, _ = peer.roc_curve(marks, scores, drop_intermediate=False)
    np.testing.assert_allclose(np.stack((x, y)), np.stack((lost, caught)), atol=1e-12)
    assert torch.trapezoid(y, x).item() == pytest.approx(auroc(counted).item(), abs=1e-12)
    x, y = precision_recall_curve(counted)
    precision, recall, _ = peer.precision_recall_curve(marks, scores)
    np.testing.assert_allclose(np.stack((x, y))[:, 1:], np.stack((recall, precision))[:, -2::-1], atol=1e-12)
    assert (x[0], y[0]) == (0, y[1])


@PROPERTY
@given(SIDE, SIDE)
def test_monotone_transforms_leave_rankings(known: list[int], ood: list[int]) -> None:
    first, _, _ = sets(known, ood)
    second = tally_sets(*(torch.tensor(side, dtype=torch.float64).mul(0.7).exp() - 5 for side in (known, ood)))
    for metric in OF_RANKING.values():
        assert metric(first).item() == metric(second).item()


@PROPERTY
@given(SIDE, SIDE)
def test_negating_scores_turns_auroc_round(known: list[int], ood: list[int]) -> None:
    counted, scores, marks = sets(known, ood)
    negated = tally(torch.from_numpy(-scores), torch.from_numpy(marks))
    assert auroc(counted).item() == pytest.approx(1 - auroc(negated).item(), abs=1e-12)
    assert aupr_in(counted).item() == pytest.approx(aupr_out(mirror(counted)).item(), abs=1e-12)


def test_goldens_by_hand() -> None:
    # Known 1 2 2 4, OOD 2 3 5. Pairs: 2 beats 1 and ties two (2), 3 beats three (3), 5 beats four (4): 9 of 12.
    counted = tally_sets(torch.tensor([1.0, 2, 2, 4]), torch.tensor([2.0, 3, 5]))
    assert auroc(counted).item() == 0.75
    # Descending 5+ 4- 3+ (2+ 2- 2-) 1-: precision at the OOD inputs 1, 2/3, 3/6, each a third of the recall.
    assert aupr_out(counted).item() == pytest.approx((1 + 2 / 3 + 1 / 2) / 3, abs=1e-15)
    # Ascending: 1 (1/1), tie of 2 (3 of 4, twice), 4 (4 of 6).
    assert aupr_in(counted).item() == pytest.approx((1 + 2 * 3 / 4 + 4 / 6) / 4, abs=1e-15)
    # 75 % of the known are at or below 2, and one OOD with them; all of them need 4, and two OOD inputs pass.
    assert fpr_at_tpr(counted, 0.75).item() == pytest.approx(1 / 3)
    assert fpr_at_tpr(counted).item() == pytest.approx(2 / 3)
    assert quantile_threshold(counted, 0.75).item() == 2
    assert quantile_threshold(counted, 0.76).item() == 4
    # Best at 2: lose 1 of 4 known, let 1 of 3 OOD pass.
    assert detection_error(counted).item() == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert youden_threshold(counted).item() == 2


def test_perfect_constant_and_worst() -> None:
    low, high, same = torch.tensor([0.0, 1]), torch.tensor([2.0, 3, 4]), torch.zeros(3)
    perfect, constant, worst = tally_sets(low, high), tally_sets(same[:2], same), tally_sets(high, low)
    names = ["auroc", "aupr_in", "aupr_out", "fpr_at_95_tpr", "detection_error"]
    assert [OF_RANKING[name](perfect).item() for name in names] == [1, 1, 1, 0, 0]
    assert [OF_RANKING[name](constant).item() for name in names] == [0.5, 0.4, 0.6, 1, 0.5]
    assert auroc(worst).item() == 0
    assert detection_error(worst).item() == 0.5
    assert fpr_at_tpr(worst).item() == 1
    assert [youden_threshold(t).item() for t in (perfect, constant, worst)] == [1, 0, 4]  # the last accepts everything


@pytest.mark.parametrize("n", [20, 60, 100, 140, 1000])
def test_the_quantile_is_not_lost_to_rounding(n: int) -> None:
    counted = tally_sets(torch.arange(float(n)), torch.arange(float(n)))
    for percent in (5, 7, 55, 70, 95):
        if (percent * n) % 100 == 0:
            assert quantile_threshold(counted, percent / 100).item() == percent * n // 100 - 1


def test_numpys_percentile_differs_by_one_known_sample_at_most() -> None:
    counted = overlapping(10_000)
    known = np.repeat(counted.values.numpy(), counted.negative.long().numpy())
    ood = np.repeat(counted.values.numpy(), counted.positive.long().numpy())
    theirs = float((ood <= np.percentile(known, 95)).mean())
    assert fpr_at_tpr(counted).item() == pytest.approx(theirs, abs=3e-4)


def test_of_a_histogram_the_threshold_may_be_infinite() -> None:
    counted = histogram_tally(torch.tensor([0.0, 5.0]), torch.tensor([False, False]), edges=torch.tensor([1.0]))
    assert quantile_threshold(counted, 0.5).item() == 1
    assert quantile_threshold(counted, 0.51).item() == float("inf")


@PROPERTY
@given(SIDE, SIDE, st.lists(st.floats(-5, 5), min_size=1, max_size=5))
def test_shares_accepted(known: list[int], ood: list[int], thresholds: list[float]) -> None:
    counted, _, _ = sets(known, ood)
    kept, passed = shares_accepted(counted, torch.tensor(thresholds, dtype=torch.float64))
    assert kept.tolist() == pytest.approx([np.mean(np.array(known) <= t) for t in thresholds])
    assert passed.tolist() == pytest.approx([np.mean(np.array(ood) <= t) for t in thresholds])


def test_replicas_are_judged_one_by_one() -> None:
    drawn = resample(overlapping(50), replicas=4, generator=torch.Generator().manual_seed(0))
    for metric in (*OF_RANKING.values(), quantile_threshold):
        each = [metric(Tally(drawn.values, drawn.negative[i], drawn.positive[i])).item() for i in range(4)]
        assert metric(drawn).tolist() == each
        assert len(set(each)) > 1
    kept, _ = shares_accepted(drawn, torch.tensor([0.0, 1.0]))
    assert kept[2].tolist() == [
        (drawn.negative[2][drawn.values <= t].sum() / drawn.negative[2].sum()).item() for t in (0, 1)
    ]


def test_float32_scores_give_what_float64_scores_give() -> None:
    generator = torch.Generator().manual_seed(0)
    known, ood = torch.randn(400, generator=generator), torch.randn(300, generator=generator) + 1
    for metric in OF_RANKING.values():
        assert metric(tally_sets(known, ood)).item() == metric(tally_sets(known.double(), ood.double())).item()


def test_curves_of_many_points_look_the_same() -> None:
    counted = overlapping(30_000)
    for curve in (roc_curve, precision_recall_curve):
        x, y = curve(counted, points=200)
        full_x, full_y = curve(counted, points=10**9)
        assert x.numel() <= 200
        inside = full_x > 0.01  # at the first few samples precision jumps, and no plot shows it
        at = np.interp(full_x[inside], x, y)
        assert np.abs(at - full_y[inside].numpy()).max() < 0.004
    x, y = roc_curve(counted)
    assert torch.trapezoid(y, x).item() == pytest.approx(auroc(counted).item(), abs=1e-4)
    assert [x[0], y[0], x[-1], y[-1]] == [0, 0, 1, 1]


def test_simplify_keeps_the_corner() -> None:
    x = torch.cat((torch.zeros(500), torch.linspace(0, 1, 500))).double()
    y = torch.cat((torch.linspace(0, 1, 500), torch.ones(500))).double()
    got_x, got_y = simplify(x, y, points=10)
    assert list(zip(got_x.tolist(), got_y.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]
    # First the peak; then 0.3 from a chord of length 10, before 0.2 from one of length 14.
    x, y = torch.tensor([[0, 5, 10, 10.2, 11], [0, 5.3, 10, 5, 0]]).double()
    assert simplify(x, y, points=4)[0].tolist() == pytest.approx([0, 10, 10.2, 11])


def test_mistakes_are_refused() -> None:
    score = torch.zeros(2)
    for metric in (*OF_RANKING.values(), roc_curve, precision_recall_curve):
        with pytest.raises(DataError, match=r"the positive \(OOD or wrong\) side is empty"):
            metric(tally_sets(score, score[:0]))
        with pytest.raises(DataError, match=r"the negative \(in-distribution or correct\) side is empty"):
            metric(tally_sets(score[:0], score))
    for bad in (0.0, 1.01, -0.5, float("nan")):
        with pytest.raises(OptionError, match="tpr: expected a share"):
            fpr_at_tpr(tally_sets(score, score), bad)
        with pytest.raises(OptionError, match="keep: expected a share"):
            quantile_threshold(tally_sets(score, score), bad)
    with pytest.raises(OptionError, match="points: expected at least 2"):
        roc_curve(overlapping(5), points=1)
