"""Selective prediction against brute force over tie orders, by hand, and by its identities."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caveat.errors import DataError, OptionError
from caveat.metrics import OF_SELECTIVE
from caveat.metrics.ranking import auroc
from caveat.metrics.selective import (
    accuracy_rejection_curve,
    augrc,
    aurc,
    coverage_at_risk,
    e_aurc,
    risk_at_coverage,
    risk_coverage_curve,
)
from caveat.metrics.tally import Tally, resample, tally

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30)


def counted(answers: list[tuple[int, bool]]) -> Tally:
    scores, wrong = zip(*answers, strict=True)
    return tally(torch.tensor(scores, dtype=torch.float64), torch.tensor(wrong))


def prefix_risks(wrong: np.ndarray) -> np.ndarray:
    return np.cumsum(wrong, dtype=np.float64) / np.arange(1, len(wrong) + 1)


def over_tie_orders(answers: list[tuple[int, bool]]) -> list[np.ndarray]:
    """The sequence of wrong marks, least doubted first, for every order of the tied samples."""
    groups = [[w for s, w in answers if s == score] for score in sorted({s for s, _ in answers})]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    return [np.array([w for group in order for w in group]) for order in orders]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_are_the_mean_over_all_orders(answers: list[tuple[int, bool]]) -> None:
    orders, got = over_tie_orders(answers), counted(answers)
    assert aurc(got).item() == pytest.approx(np.mean([prefix_risks(o).mean() for o in orders]), abs=1e-12)
    n = len(answers)
    for size in range(1, n + 1):
        expected = np.mean([prefix_risks(o)[size - 1] for o in orders])
        assert risk_at_coverage(got, size / n).item() == pytest.approx(expected, abs=1e-12)


def test_equals_the_naive_mean_of_prefix_risks() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3000, generator=generator, dtype=torch.float64)
    wrong = torch.rand(3000, generator=generator) < torch.sigmoid(2 * scores - 3)
    ordered = wrong[scores.argsort()].numpy()
    got, naive = tally(scores, wrong), prefix_risks(ordered).mean()
    assert aurc(got).item() == pytest.approx(naive, rel=1e-12)
    assert e_aurc(got).item() == pytest.approx(naive - prefix_risks(np.sort(ordered)).mean(), rel=1e-10)
    assert augrc(got).item() == pytest.approx((np.cumsum(ordered) - ordered / 2).sum() / 3000**2, rel=1e-12)


def test_precise_with_many_samples_per_cell() -> None:
    # Two cells of a million: the first prefix risks are 0.1, then they rise by the harmonic rule.
    n = 1_000_000
    got = Tally(*(torch.tensor(v, dtype=torch.float64) for v in ([0, 1], [0.9 * n, 0.5 * n], [0.1 * n, 0.5 * n])))
    k = np.arange(1, n + 1)
    second = (0.1 * n + 0.5 * k) / (n + k)
    assert aurc(got).item() == pytest.approx((0.1 * n + second.sum()) / (2 * n), rel=1e-12)


def test_goldens_by_hand() -> None:
    # Right, wrong, right, in this order: prefix risks 0, 1/2, 1/3.
    got = tally(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([False, True, False]))
    assert aurc(got).item() == pytest.approx(5 / 18, abs=1e-15)
    assert e_aurc(got).item() == pytest.approx(5 / 18 - 1 / 9, abs=1e-15)  # ideal: 0, 0, 1/3
    assert augrc(got).item() == pytest.approx((0 + 0.5 + 1) / 9, abs=1e-15)  # trapezoids of 0, 0, 1, 1
    assert risk_at_coverage(got, 2 / 3).item() == 0.5
    assert risk_at_coverage(got, 0.3).item() == 0  # one sample
    assert coverage_at_risk(got, 0.05).item() == pytest.approx(1 / 3)
    assert coverage_at_risk(got, 0.34).item() == 1  # later prefixes may be better again
    assert coverage_at_risk(tally(torch.tensor([0.0, 1]), torch.tensor([True, False])), 0.1).item() == 0


@PROPERTY
@given(ANSWERS, st.randoms(use_true_random=False))
def test_order_of_the_data_is_irrelevant(answers: list[tuple[int, bool]], random) -> None:
    # Regression: TorchUncertainty 0.13's AURC of the same 200 tied predictions was .188, .214 or .166 by their order.
    shuffled = list(answers)
    random.shuffle(shuffled)
    for metric in OF_SELECTIVE.values():
        assert metric(counted(answers)).item() == metric(counted(shuffled)).item()


@PROPERTY
@given(ANSWERS)
def test_augrc_identity(answers: list[tuple[int, bool]]) -> None:
    # Traub et al. 2024: AUGRC = (1 - AUROC) a (1 - a) + (1 - a)^2 / 2.
    got = counted([*answers, (1, False), (2, True)])
    a = (got.negative.sum() / (got.negative + got.positive).sum()).item()
    assert augrc(got).item() == pytest.approx((1 - auroc(got).item()) * a * (1 - a) + (1 - a) ** 2 / 2, abs=1e-12)


@PROPERTY
@given(ANSWERS)
def test_risk_at_full_coverage_is_the_error_rate_and_e_aurc_is_not_negative(answers: list[tuple[int, bool]]) -> None:
    got = counted(answers)
    assert risk_at_coverage(got, 1.0).item() == pytest.approx(np.mean([w for _, w in answers]), abs=1e-15)
    assert e_aurc(got).item() >= -1e-12


def test_a_useless_score_has_the_error_rate() -> None:
    got = tally(torch.zeros(50), torch.arange(50) < 10)
    assert aurc(got).item() == pytest.approx(0.2, abs=1e-15)
    assert risk_at_coverage(got, 0.5).item() == pytest.approx(0.2, abs=1e-15)
    assert coverage_at_risk(got, 0.19).item() == 0
    assert coverage_at_risk(got, 0.2).item() == 1


def test_the_size_is_not_lost_to_rounding() -> None:
    # 0.07 * 100 is 7.000000000000001: still seven samples, and none of them is wrong.
    got = tally(torch.arange(100.0), torch.arange(100) == 7)
    assert risk_at_coverage(got, 0.07).item() == 0
    assert risk_at_coverage(got, 0.08).item() == 1 / 8


def test_no_and_only_mistakes() -> None:
    scores = torch.arange(5.0)
    none, only = tally(scores, torch.zeros(5, dtype=torch.bool)), tally(scores, torch.ones(5, dtype=torch.bool))
    assert [aurc(none).item(), e_aurc(none).item(), augrc(none).item(), coverage_at_risk(none).item()] == [0, 0, 0, 1]
    assert aurc(only).item() == pytest.approx(1, abs=1e-15)
    assert e_aurc(only).item() == pytest.approx(0, abs=1e-15)
    assert augrc(only).item() == 0.5


def test_replicas_are_judged_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(60, generator=generator)
    exact = tally(scores, torch.rand(60, generator=generator) < scores)
    drawn = resample(exact, replicas=4, generator=generator, stratified=False)
    for metric in OF_SELECTIVE.values():
        each = [metric(Tally(drawn.values, drawn.negative[i], drawn.positive[i])).item() for i in range(4)]
        assert metric(drawn).tolist() == pytest.approx(each, abs=1e-15)
        assert len(set(each)) > 1


def test_curves() -> None:
    got = tally(torch.tensor([0.0, 0, 1, 2]), torch.tensor([False, True, False, True]))
    x, y = risk_coverage_curve(got)
    assert x.tolist() == [0, 0.5, 0.75, 1]
    assert y.tolist() == pytest.approx([0.5, 0.5, 1 / 3, 0.5])
    x, y = accuracy_rejection_curve(got)
    assert x.tolist() == [0, 0.25, 0.5, 1]
    assert y.tolist() == pytest.approx([0.5, 2 / 3, 0.5, 0.5])


def test_curve_of_many_points_looks_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20_000, generator=generator)
    got = tally(scores, torch.rand(20_000, generator=generator) < scores**2)
    x, y = risk_coverage_curve(got, points=200)
    assert x.numel() <= 200
    full = np.cumsum(np.interp(np.linspace(0, 1, 1001), x, y))[-1] / 1001
    assert full == pytest.approx(aurc(got).item(), abs=2e-4)


def test_mistakes_are_refused() -> None:
    got = tally(torch.zeros(1), torch.tensor([True]))
    with pytest.raises(OptionError, match="coverage"):
        risk_at_coverage(got, 0.0)
    with pytest.raises(OptionError, match="risk"):
        coverage_at_risk(got, 1.5)
    with pytest.raises(DataError, match="replicas"):
        risk_coverage_curve(resample(got, replicas=2, generator=torch.Generator()))
