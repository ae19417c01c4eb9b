"""A monitor raises false alarms no more often than it says, finds a change soon, and is the same after a stop."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from caveat.errors import DataError, OptionError
from caveat.guard.monitor import Monitor
from caveat.guard.threshold import promise
from caveat.metrics import martingale
from caveat.records.monitor import State

Numbers = NDArray[np.float64]


def reference(count: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ascending scores and which answers were wrong: 10 %, more of them where the score is high."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, generator=generator).double().sort().values
    return scores, torch.rand(count, generator=generator) < 0.2 * torch.sigmoid(2 * scores).float()


def monitor(count: int = 400, seed: int = 0, level: float = 0.01, **options: float) -> Monitor:
    scores, wrong = reference(count, seed)
    return Monitor(scores, wrong, promise(scores, wrong, **(options or {"keep": 0.9})), level=level, seed=seed)


def stream(count: int, share: float = 0.0, at: int = 0, seed: int = 1) -> Numbers:
    rng = np.random.default_rng(seed)
    other = (rng.random(count) < share) & (np.arange(count) >= at)
    return np.where(other, rng.normal(5, 1, count), rng.normal(size=count))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_p_values_are_ranks_among_all_before(known: list[int], new: list[int]) -> None:
    ranks = martingale.Ranks(np.sort(np.array(known, dtype=np.float64)), seed=3)
    lots = 1 - np.random.default_rng(np.random.PCG64(3)).random(len(new))
    before = [min(value, 1 + max(known)) for value in known]
    for score, found, lot in zip(new, ranks(np.array(new, dtype=np.float64)), lots, strict=True):
        here = np.searchsorted(np.sort(known), score)  # scores within one gap of the reference count as equal
        gaps = np.searchsorted(np.sort(known), before)
        expected = ((gaps > here).sum() + lot * ((gaps == here).sum() + 1)) / (len(before) + 1)
        assert found == pytest.approx(expected, abs=1e-12)
        before.append(score)


def test_bets_are_fair() -> None:
    middle = (np.arange(100_000) + 0.5) / 100_000
    np.testing.assert_allclose(martingale.extremes(middle).mean(axis=0), 1, atol=1e-12)
    for bound in (0.01, 0.3):
        lost, won = martingale.hits(np.array([0.0, 1.0]), bound)
        np.testing.assert_allclose(bound * won + (1 - bound) * lost, 1, atol=1e-12)
    assert (martingale.extremes(middle) > 0).all()


def test_false_alarms_are_as_rare_as_promised() -> None:
    streams, length, level = 300, 1000, 0.1
    made = [
        martingale.Ranks(np.sort(stream(200, seed=2 * s)), seed=s)(stream(length, seed=2 * s + 1))
        for s in range(streams)
    ]
    weights = np.tile(martingale.start(1 + len(martingale.EXTREME)), (streams, 1))
    gained, _ = martingale.advanced(weights, martingale.extremes(np.stack(made)), 0)
    highest = gained.cumsum(axis=1).max(axis=1)
    for alpha in (level, 0.3):
        false = int((highest >= math.log(1 / alpha)).sum())
        assert false <= alpha * streams + 2 * math.sqrt(streams * alpha * (1 - alpha))


def test_all_three_claims_hold_for_fresh_inputs_of_the_same_kind() -> None:
    alarms = 0
    for seed in range(40):
        watching = monitor(seed=seed, level=0.2)
        scores = stream(400, seed=1000 + seed)
        watching.update(scores, scores <= watching.threshold)
        generator = np.random.default_rng(seed)
        right = 0.2 / (1 + np.exp(-2 * scores[scores <= watching.threshold]))
        watching.learn(generator.random(len(right)) < right)
        alarms += bool(watching.state.alarms)
    assert alarms <= 0.2 * 40 + 2 * math.sqrt(40 * 0.2 * 0.8)


@pytest.mark.parametrize("at", [0, 1500])
def test_a_share_of_other_inputs_is_found_soon_and_dated(at: int) -> None:
    delays: list[int] = []
    for seed in range(5):
        watching = monitor(1000, seed=seed)
        scores = stream(at + 1000, 0.05, at, seed=seed + 50)
        alarm = watching.update(scores, scores <= watching.threshold)[0]
        assert alarm.watched == "scores"
        assert abs(alarm.since - at) <= 250
        delays.append(alarm.at - at)
    assert sorted(delays)[2] <= 300


def test_a_share_above_its_bound_is_found() -> None:
    watching = monitor(2000, keep=0.9)
    flat = np.zeros(3000)  # the scores say nothing
    accepted = np.random.default_rng(0).random(3000) > 0.2
    assert [alarm.watched for alarm in watching.update(flat, accepted)] == ["abstentions"]
    scores, wrong = reference(2000)
    watching = Monitor(scores, wrong, promise(scores, wrong, max_error=0.2))
    assert watching.state.bets["errors"].bound == 0.2
    assert not watching.learn(np.random.default_rng(1).random(2000) < 0.2)
    assert [alarm.watched for alarm in watching.learn(np.random.default_rng(2).random(2000) < 0.3)] == ["errors"]
    assert "Alarm: the share of wrong answers" in watching.sentences()[2]


@settings(max_examples=6)
@given(st.lists(st.integers(0, 700), max_size=4), st.integers(0, 5))
def test_a_monitor_that_was_stopped_goes_on_as_if_it_had_not_been(cuts: list[int], seed: int) -> None:
    scores = stream(700, 0.05, 200, seed=seed)
    scores[13] = np.nan
    whole = monitor()
    whole.update(scores, scores <= whole.threshold)
    kept: str | None = None
    for first, last in pairwise([0, *sorted(cuts), 700]):
        part = monitor() if kept is None else monitor().resume(State.model_validate_json(kept))
        part.update(scores[first:last], scores[first:last] <= part.threshold)
        kept = part.state.model_dump_json()
    assert kept == whole.state.model_dump_json()


def test_alarms_are_told_alike_whichever_of_verdicts_and_labels_came_first() -> None:
    """A process that takes a long file at once has its labels after all verdicts, one that is asked often not."""
    scores, accepted, wrong = stream(400, share=1.0), np.zeros(400, dtype=bool), np.ones(200, dtype=bool)
    early, late = monitor(), monitor()
    assert [alarm.watched for alarm in early.learn(wrong)] == ["errors"]
    assert [alarm.watched for alarm in early.update(scores, accepted)] == ["scores", "abstentions"]
    late.update(scores, accepted)
    assert [alarm.watched for alarm in late.learn(wrong)] == ["errors"]
    assert early.state.alarms == late.state.alarms
    assert len(early.state.alarms) == 3


def test_another_guard_or_an_altered_state_is_refused() -> None:
    state = monitor().state
    for other in (monitor(300), monitor(level=0.02), monitor(keep=0.8)):
        with pytest.raises(DataError, match="of another guard, threshold, level or seed"):
            other.resume(state)
    altered = state.model_copy(deep=True)
    altered.counts[0] += 1
    with pytest.raises(DataError, match="was altered"):
        monitor().resume(altered)
    with pytest.raises(OptionError, match="level: expected a probability"):
        monitor(level=1.0)
    with pytest.raises(DataError, match="at least 50"):
        monitor(40)
    with pytest.raises(DataError, match="as many as accepted"):
        monitor().update(np.zeros(3), np.zeros(2, dtype=bool))
    scores, wrong = reference()
    plain = Monitor(scores, None, promise(scores, wrong, keep=0.9))
    with pytest.raises(OptionError, match="errors are watched of classifiers alone"):
        plain.learn([True])


def test_the_history_stays_short() -> None:
    watching = monitor()
    scores = stream(5000)
    watching.update(scores, scores <= watching.threshold)
    history = watching.state.history
    assert 500 <= len(history) <= 1000
    assert [point.seen for point in history] == list(range(8, 5001, 8))
    assert history[-1].accepted == pytest.approx((scores <= watching.threshold).mean())
