"""The 95 % intervals hold the truth as often as they say: a bounded part of benchmarks/coverage.py."""

import math
from functools import cache, partial
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.scripts import benchmark

from caveat.metrics.interval_of_tally import interval_of_ranking
from caveat.metrics.ranking import aupr_in, aupr_out, auroc
from caveat.metrics.tally import tally_sets

RUNS = 80


def error(given: float) -> float:
    """Standard error of a simulated coverage of 0.95."""
    return (0.95 * 0.05 / given) ** 0.5


@cache
def smaller() -> ModuleType:
    module = benchmark("coverage")
    module.POPULATION = 200_000  # pyright: ignore[reportAttributeAccessIssue]
    return module


@cache
def cells() -> list[Any]:
    script = smaller()
    found: list[Any] = []
    for n, signal, hot in ((200, 1.5, 1.0), (200, 3.0, 1.0), (200, 4.5, 1.5), (2000, 4.0, 1.0), (2000, 4.5, 1.5)):
        draw = partial(script.of_classifier, n, signal, hot)
        found += script.simulate(draw, script.population(signal, hot), where=f"{signal}, {hot}", n=n, runs=RUNS)
    for n, shift in ((200, 0.5), (200, 3.0), (2000, 1.5)):
        draw = partial(script.of_pair, n, shift)
        found += script.simulate(draw, script.pair_population(shift), where=f"{shift} apart", n=n, runs=RUNS)
    return found


def test_every_interval_holds_the_truth_or_is_not_given() -> None:
    assert len(cells()) == 5 * 6 + 3 * 4
    for cell in cells():
        assert cell.missed <= 0.05 + 4 * error(RUNS), cell
        if cell.given >= 0.5:
            assert cell.held >= 0.95 - 4 * error(cell.given * RUNS), cell


def test_on_the_whole_they_are_as_wide_as_they_must_be() -> None:
    # Cells of one data set are dependent: the error of their mean is about that of eight, 0.009.
    held = [cell.held for cell in cells() if cell.given >= 0.5]
    assert len(held) > 30
    assert 0.925 <= sum(held) / len(held) <= 0.98


def test_few_mistakes_are_said_to_be_too_few() -> None:
    given = {(cell.what, cell.where, cell.n): cell.given for cell in cells()}
    for what in ("nll", "brier", "auroc of mistakes", "aurc"):
        assert given[what, "4.5, 1.5", 200] < 0.05  # one mistake in 200 predictions
        assert given[what, "1.5, 1.0", 200] == 1
    assert given["accuracy", "4.5, 1.5", 200] == given["ece", "4.5, 1.5", 200] == 1


@pytest.mark.parametrize(
    ("known", "ood", "shift", "spread"),
    [(50, 50, 4.5, 1.0), (2000, 20, 3.0, 1.0), (200, 200, 3.0, 0.3), (100, 1000, 4.0, 3.0), (15, 15, 1.5, 1.0)],
)
def test_auroc_near_one_from_few_and_from_unequal_sets(known: int, ood: int, shift: float, spread: float) -> None:
    truth = 0.5 * (1 + math.erf(shift / (2 * (1 + spread**2)) ** 0.5))
    runs, held = 150, 0
    for seed in range(runs):
        g = torch.Generator().manual_seed(seed)
        scores = torch.randn(known + ood, generator=g, dtype=torch.float64)
        counted = tally_sets(scores[:known], shift + spread * scores[known:])
        got = interval_of_ranking(auroc, counted)
        assert got is not None
        assert got.high > got.low
        held += got.low <= truth <= got.high
        beside = interval_of_ranking((aupr_in, aupr_out)[seed % 2], counted)
        assert beside is not None
        assert beside.high > beside.low
    assert held / runs >= 0.95 - 3 * error(runs)


def test_promises_hold() -> None:
    for item in smaller().promises(40, fresh=500):
        assert item.seen >= item.promised - 4 * max(item.error, 0.01), item
        assert item.seen <= 1, item
