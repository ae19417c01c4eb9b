"""A guarantee is denied only where chance does not explain the misses."""

import random

import pytest

from caveat.records.record import Conformal, Estimate
from caveat.report.promises import chance_of_misses, keeps


def sets(misses: int, judged: int, calibration: int) -> Conformal:
    share = 1 - misses / judged
    coverage = Estimate(value=share, low=share - 0.01, high=share + 0.01)
    return Conformal(
        name="lac", error=0.1, coverage=coverage, fitted_on=calibration, judged_on=judged, mean_size={}, size_shares={}
    )


@pytest.mark.parametrize(("calibration", "judged"), [(49, 400), (159, 640), (1000, 2000)])
def test_a_guarantee_that_holds_is_seldom_denied(calibration: int, judged: int) -> None:
    drawn = random.Random(calibration)
    least = (calibration + 1) // 10
    runs, denied = 1000, 0
    for _ in range(runs):
        rate = drawn.betavariate(least, calibration + 1 - least)
        misses = sum(drawn.random() < rate for _ in range(judged))
        denied += not keeps(sets(misses, judged, calibration))
    assert denied <= 0.02 * runs
    assert denied >= 0.002 * runs  # the test is of size 1 %, not of none


def test_the_user_s_report_is_no_broken_guarantee() -> None:
    # 87.4 % of 637 with 159 calibration samples: one standard deviation of the coverage alone is 2.4 points
    assert keeps(sets(80, 637, 159))
    assert not keeps(sets(130, 637, 159))  # 79.6 %
    assert not keeps(sets(520, 4000, 4000))  # 87.0 %, with splits that are large enough to show it


def test_chances_are_those_of_the_beta_binomial() -> None:
    # With 9 samples and l = 1, the rate is uniform's minimum of 9: P(2 of 2 missed) = E[rate^2] = 2 / (10 * 11).
    assert chance_of_misses(2, 2, calibration=9, error=0.1) == pytest.approx(2 / 110)
    assert chance_of_misses(1, 50, calibration=5, error=0.1) == 1.0
    assert chance_of_misses(6, 50, calibration=5, error=0.1) == 0.0  # no threshold: no set can miss


def test_without_sizes_nothing_is_denied() -> None:
    assert keeps(sets(80, 100, 0).model_copy(update={"judged_on": 0}))
