"""Defaults are part of a result: those that papers or users rely on, in one list."""

import inspect
from collections.abc import Callable

import pytest

from caveat.calibration import cqr
from caveat.posteriors import dropout, laplace, swag, tradi
from caveat.scores.logits import gen
from caveat.scores.meta.linear import STRENGTHS

DEFAULTS: list[tuple[Callable[..., object], str, object]] = [
    (cqr.fit, "error", 0.1),
    (swag.start, "rank", 20),
    (swag.start, "burn_in", 0),
    (dropout.of, "rate", 0.1),
    (tradi.Tracker.posterior, "features", 10),
    (tradi.Tracker.posterior, "length", 1.0),
    (laplace.fit, "structure", "full"),
    (gen, "gamma", 0.1),
    (gen, "top", 100),
]


@pytest.mark.parametrize(("function", "name", "value"), DEFAULTS)
def test_a_default_is_what_is_documented(function: Callable[..., object], name: str, value: object) -> None:
    assert inspect.signature(function).parameters[name].default == value


def test_strengths_of_the_meta_classifiers() -> None:
    assert STRENGTHS == (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def test_noises_of_tradi() -> None:
    noise = tradi.Noise()
    assert (noise.mean, noise.variance, noise.observed) == (1e-4, 5e-5, 10.0)
