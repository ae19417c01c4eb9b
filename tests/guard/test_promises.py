"""Promises beside `keep` and `max_error`: kept as often as they say, a bounded part of benchmarks/promises.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from tests.audits.conftest import CLASSES, pictures
from tests.scripts import benchmark
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.guard import Guard, artefact, discoveries, refused_at_most
from caveat.guard.guarantee import guarantee
from caveat.guard.monitor import Monitor
from caveat.guard.threshold import mixed_error, promise

TRIALS = 100


def known_set(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % CLASSES
    return pictures(labels, generator), labels


@pytest.fixture
def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_every_class_is_accepted_as_often_as_promised(seeded: torch.Generator) -> None:
    least = benchmark("promises").each_class(TRIALS, seeded)
    assert least["each_class"] >= 0.95
    assert least["keep"] < 0.9  # which speaks of all classes together


def test_of_what_is_told_of_a_batch_few_are_false(seeded: torch.Generator) -> None:
    found = benchmark("promises").false_discoveries(TRIALS, seeded)
    assert found["fdr"] <= 0.1
    assert found["found"] > 0.5
    assert found["fdr_of_keep"] > 0.2  # each input by itself promises nothing of a batch


def test_the_bound_of_refusals_holds_for_all_thresholds_at_once(seeded: torch.Generator) -> None:
    found = benchmark("promises").bound_of_refusals(2 * TRIALS, seeded)
    assert found.broken <= 0.05 + 2 * (0.05 * 0.95 / found.made) ** 0.5


def test_the_error_under_a_mixture_holds_where_it_is_promised_and_not_where_it_is_not(seeded: torch.Generator) -> None:
    errors = benchmark("promises").errors
    mixture = errors(TRIALS, seeded, share=0.1, ood=benchmark("promises").OOD)
    assert mixture.made == TRIALS
    assert mixture.broken <= mixture.allowed
    assert (
        errors(TRIALS, seeded, share=None, ood=benchmark("promises").OOD).broken > 0.5
    )  # promised for known inputs alone
    assert (
        errors(TRIALS, seeded, share=0.1, ood=benchmark("promises").OTHER).broken > 0.5
    )  # of inputs unlike those held out


@given(
    st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=30), st.sampled_from([0.05, 0.2])
)
def test_discoveries_are_those_of_scipy(p_values: list[float], level: float):
    p = torch.tensor(p_values, dtype=torch.float64)
    some = ~p.isnan()
    expected = torch.zeros(len(p), dtype=torch.bool)
    if some.any():
        adjusted = false_discovery_control(p[some].numpy())
        if bool((np.abs(adjusted - level) < 1e-12).any()):
            return  # a tie of roundings
        expected[some] = torch.from_numpy(adjusted <= level)
    assert torch.equal(discoveries(p, level), expected)


def test_the_bound_is_one_where_half_is_refused_and_falls_with_the_threshold():
    scores = torch.arange(101.0).double()
    bounds = refused_at_most(scores, torch.linspace(-1, 101, 50, dtype=torch.float64))
    assert bounds[0] == 1
    assert (bounds.diff() <= 0).all()
    # above all: 1 - 0.05^(1/51), as the product is 1
    assert float(bounds[-1]) == pytest.approx(1 - 0.05 ** (1 / 51), abs=1e-12)


@given(*[st.floats(0.01, 0.99)] * 4, st.floats(0, 0.009))
def test_a_mixture_errs_more_with_each_bound(error: float, kept: float, passed: float, share: float, more: float):
    base = mixed_error(error, kept, passed, share)
    assert mixed_error(error + more, kept, passed, share) >= base - 1e-12
    assert mixed_error(error, kept, passed + more, share) >= base - 1e-12
    assert mixed_error(error, kept - more, passed, share) >= base - 1e-12
    if passed >= error * kept:  # each OOD input adds more error than the known one that it replaces
        assert mixed_error(error, kept, passed, share + more) >= base - 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ood_share": 0.1, "max_error": 0.1}, "ood_share: nothing can be promised of OOD inputs of which none"),
        ({"ood_share": 0.1, "keep": 0.9}, "ood_share: it belongs to max_error"),
        ({"ood_share": 10.0, "max_error": 0.1}, r"ood_share: expected a share in \(0, 1\), got 10; write 0.1 for 10 %"),
        ({"each_class": True, "max_error": 0.1}, "each_class: it belongs to keep"),
        ({"each_class": True, "keep": 0.995}, "can't be promised for any of 4 classes, as the largest has .* at least"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    model: nn.Module, generator: torch.Generator, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        Guard.fit(model, [known_set(generator, 400)], score="msp", **options)


def test_the_promises_travel_and_say_what_they_hold_for(
    model: nn.Module, generator: torch.Generator, ood: dict[str, Any], tmp_path: Path
) -> None:
    images, labels = known_set(generator, 1200)
    few = (labels != 2) | (torch.arange(len(labels)) < 32)  # eight
    known = [(images[few], labels[few])]
    made = Guard.fit(model, known, score="msp", keep=0.9, each_class=True)
    assert made.decision.promise.without == (2,)
    words = guarantee(made.decision.promise, made.decision.classes)
    assert words == "accepts a fresh input of every class with probability 90.0% or more, but for 2 (too few samples)"
    made.save(tmp_path / "guard")
    assert artefact.load(tmp_path / "guard", model).decision.promise == made.decision.promise
    artefact.tune(tmp_path / "guard", keep=0.8)
    tuned = artefact.tune(tmp_path / "guard", keep=0.9, each_class=True)
    assert tuned.operating.threshold == made.decision.promise.threshold
    mixed = Guard.fit(model, known, score="msp", max_error=0.2, ood_share=0.05, against=ood["noise"]).decision
    words = guarantee(mixed.promise, mixed.classes)
    assert "where up to 5.0% of the inputs are OOD, if those are like the held-out OOD set (of which at most" in words
    assert "where OOD inputs come too, nothing is guaranteed" in guarantee(mixed.tuned(max_error=0.2).promise, [])


def test_a_monitor_allows_the_abstentions_of_a_threshold_that_was_chosen_among_several():
    scores = torch.linspace(0, 1, 300, dtype=torch.float64)
    wrong, labels = torch.zeros(300, dtype=torch.bool), torch.arange(300) % 3
    one, each = promise(scores, wrong, keep=0.9), promise(scores, wrong, keep=0.9, labels=labels, classes=3)
    bounds = [Monitor(scores, wrong, made).state.bets["abstentions"].bound for made in (one, each)]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[1] > bounds[0]
