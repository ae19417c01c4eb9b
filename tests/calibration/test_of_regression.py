"""Normalised conformal intervals and variance scaling: closed forms, and the promise by simulation."""

import math

import pytest
import torch

from caveat.calibration import cqr, normalised, variance_scaling
from caveat.errors import DataError, OptionError

BREAKERS = [
    ({"scale": torch.zeros(4)}, "positive"), ({"labels": torch.full((4,), float("nan"))}, "labels: expected finite"),
    ({"mean": torch.full((4,), float("inf"))}, "mean: expected finite"),
]  # fmt: skip


def test_the_order_statistic_by_hand():
    found = normalised.fit(torch.zeros(9), torch.arange(1.0, 10), torch.arange(1.0, 10) ** 2, error=0.2)
    assert float(found.quantile) == pytest.approx(8.0)  # the ceil(10 * 0.8) = 8th smallest of 1..9


def test_with_one_scale_it_is_split_conformal_prediction():
    generator = torch.Generator().manual_seed(0)
    mean, labels = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    one = normalised.fit(mean, torch.ones_like(mean), labels, error=0.3)(mean, torch.ones_like(mean))
    other = cqr.fit(mean, mean, labels, error=0.3)(mean, mean)
    torch.testing.assert_close(torch.stack(one), torch.stack(other))


def test_too_few_samples_give_an_infinite_interval():
    found = normalised.fit(torch.zeros(5), torch.ones(5), torch.ones(5), error=0.1)
    lower, upper = found(torch.zeros(1), torch.ones(1))
    assert (float(lower), float(upper)) == (-math.inf, math.inf)


def test_a_label_on_the_end_of_its_interval_is_inside_in_single_precision():
    generator = torch.Generator().manual_seed(1)
    mean, scale, labels = torch.randn(3, 500, generator=generator)
    scale = scale.abs() + 0.1
    found = normalised.fit(mean, scale, labels, error=0.5)
    lower, upper = found(mean, scale)
    assert int(((lower <= labels) & (labels <= upper)).sum()) >= math.ceil(501 * 0.5)


@pytest.mark.parametrize("error", [0.1, 0.4])
def test_the_promise_holds_over_many_splits(error):
    generator = torch.Generator().manual_seed(2)
    held = total = 0
    for _ in range(300):
        scale = torch.rand(60, generator=generator, dtype=torch.float64) + 0.2
        labels = scale * torch.randn(60, generator=generator, dtype=torch.float64) ** 3
        zeros = torch.zeros_like(scale)
        lower, upper = normalised.fit(zeros[:30], scale[:30], labels[:30], error=error)(zeros[30:], scale[30:])
        held += int(((lower <= labels[30:]) & (labels[30:] <= upper)).sum())
        total += 30
    assert 1 - error - 0.015 < held / total < 1 - error + 1 / 31 + 0.015


@pytest.mark.parametrize(("change", "word"), BREAKERS)
def test_what_is_no_prediction_is_refused(change, word):
    good = {"mean": torch.zeros(4), "scale": torch.ones(4), "labels": torch.ones(4)}
    for fit in (normalised.fit, variance_scaling.fit):
        with pytest.raises(DataError, match=word):
            fit(**good | change)


def test_an_error_is_a_share():
    with pytest.raises(OptionError, match="error"):
        normalised.fit(torch.zeros(4), torch.ones(4), torch.ones(4), error=1.0)


def test_scaled_variances_are_likeliest_and_undo_a_factor():
    generator = torch.Generator().manual_seed(3)
    mean, noise = torch.randn(2, 4000, generator=generator, dtype=torch.float64)
    scale = torch.rand(4000, generator=generator, dtype=torch.float64) + 0.5
    labels = mean + 2.5 * scale * noise
    found = variance_scaling.fit(mean, scale, labels)
    assert float(found.factor) == pytest.approx(2.5, rel=0.03)

    def nll(factor):
        return float((0.5 * ((labels - mean) / (factor * scale)) ** 2 + (factor * scale).log()).mean())

    best = float(found.factor)
    assert nll(best) < min(nll(best * 0.99), nll(best * 1.01))
    torch.testing.assert_close(found(scale), best * scale)
