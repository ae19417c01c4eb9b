"""Metrics of predictive distributions: golden numbers, integration as the oracle."""

import inspect
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from caveat.errors import DataError, OptionError
from caveat.metrics import OF_REGRESSION, prediction_intervals, regression


def given(n: int = 300, seed: int = 0, *, bias: float = 0.0, dtype=torch.float64) -> dict[str, torch.Tensor]:
    """A right prediction of noisy labels, but for `bias` standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(n, generator=generator, dtype=torch.float64)
    variance = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    labels = truth + variance.sqrt() * torch.randn(n, generator=generator, dtype=torch.float64)
    return arguments(truth + bias * variance.sqrt(), variance, labels, dtype)


def arguments(mean, variance, labels, dtype=torch.float64) -> dict[str, torch.Tensor]:
    scale = variance.sqrt()
    parts = torch.stack([mean - 0.3 * scale, mean + 0.3 * scale])
    found = {
        "mean": mean, "variance": variance, "labels": labels, "means": parts,
        "variances": torch.stack([0.91 * variance] * 2), "lower": mean - 1.96 * scale, "upper": mean + 1.96 * scale,
        "pit": torch.special.ndtr((labels - mean) / scale),
    }  # fmt: skip
    return {name: value.to(dtype) for name, value in found.items()}


def value_of(name: str, found: dict[str, torch.Tensor]) -> torch.Tensor:
    metric = OF_REGRESSION[name]
    own = [p.name for p in inspect.signature(metric).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return metric(*(found[key] for key in own))


@pytest.mark.parametrize("name", ["gaussian_nll", "gaussian_crps", "mixture_nll", "mixture_crps", "interval_score"])
def test_proper_scores_are_best_for_the_truth(name: str):
    true = given(20_000, 3)
    value = value_of(name, true)
    for mean, variance in ((0.3, 1.0), (0.0, 1.7), (0.0, 0.5)):
        off = arguments(true["mean"] + mean * true["variance"].sqrt(), variance * true["variance"], true["labels"])
        assert value_of(name, off) > value


def test_golden_numbers():
    # CRPS of N(0, 1) at 0: (sqrt 2 - 1)/sqrt pi; interval score: width 2, label 1.5 beyond at 10 % error: 2 + 20 * 1.5
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    assert regression.gaussian_crps(zero, one, zero).item() == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi))
    assert prediction_intervals.interval_score(-one, one, 2.5 * one, error=0.1).item() == pytest.approx(32.0)
    assert prediction_intervals.interval_score(-one, one, -2.5 * one, error=0.1).item() == pytest.approx(32.0)
    assert prediction_intervals.interval_coverage(zero, one, one) == 1
    assert prediction_intervals.interval_width(-one, one) == 2
    assert prediction_intervals.interval_width(one, one) == 0  # a prediction without doubt
    off = torch.tensor([1.0, -2.0, 0.0]).double()
    assert regression.mae(0 * off, off).item() == pytest.approx(1.0)  # errors of both signs do not cancel
    assert regression.rmse(0 * off, off).item() == pytest.approx(math.sqrt(5 / 3))


def test_densities_are_scipys(generator: torch.Generator):
    found = given(40)
    expected = -stats.norm.logpdf(found["labels"].numpy(), found["mean"].numpy(), found["variance"].sqrt().numpy())
    assert regression.gaussian_nll_of_each(found["mean"], found["variance"], found["labels"]).tolist() == pytest.approx(
        expected.tolist(), rel=1e-12
    )
    weights = torch.rand(2, 40, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum(0)
    ours = regression.mixture_nll_of_each(found["means"], found["variances"], found["labels"], weights=weights)
    parts = stats.norm.pdf(found["labels"].numpy(), found["means"].numpy(), found["variances"].sqrt().numpy())
    assert ours.tolist() == pytest.approx((-np.log((weights.numpy() * parts).sum(0))).tolist(), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_crps_by_integration(k: int, generator: torch.Generator):
    means = torch.randn(k, 4, generator=generator, dtype=torch.float64)
    variances = torch.rand(k, 4, generator=generator, dtype=torch.float64) + 0.1
    weights = torch.rand(k, 4, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum(0)
    labels = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    ours = regression.mixture_crps_of_each(means, variances, labels, weights=weights)
    for i, label in enumerate(labels.tolist()):

        def square(t: float, i: int = i, label: float = label) -> float:
            steps = (t - means[:, i]) / variances[:, i].sqrt()
            below = float((weights[:, i].numpy() * stats.norm.cdf(steps.numpy())).sum())
            return (below - (t >= label)) ** 2

        parts = [integrate.quad(square, *ends, epsabs=1e-10, limit=200)[0] for ends in ((-15, label), (label, 15))]
        assert ours[i].item() == pytest.approx(sum(parts), abs=1e-8)
    if k == 1:
        assert torch.allclose(ours, regression.gaussian_crps_of_each(means[0], variances[0], labels), atol=1e-14)


def test_a_mixture_of_equal_parts_is_one_gaussian():
    found = given(30)
    both = {"means": found["mean"].expand(4, 30), "variances": found["variance"].expand(4, 30)}
    for kind in ("nll", "crps"):
        one = value_of(f"gaussian_{kind}", found)
        assert value_of(f"mixture_{kind}", found | both).item() == pytest.approx(one.item(), rel=1e-12)


def test_calibration_curve():
    levels, observed = prediction_intervals.calibration_curve(torch.tensor([0.1, 0.3, 0.3, 0.9]), points=3)
    assert levels.tolist() == [0.25, 0.5, 0.75]
    assert observed.tolist() == [0.25, 0.75, 0.75]
    assert prediction_intervals.calibration_error(torch.tensor([0.1, 0.3, 0.3, 0.9]), points=3).item() == pytest.approx(
        0.25 / 3
    )
    assert prediction_intervals.calibration_error(torch.arange(1, 1000) / 1000) < 1e-3
    # of the right predictions the curve is the diagonal up to chance; twice too small a deviation is seen
    assert prediction_intervals.calibration_error(given(4000)["pit"]) < 0.02
    found = given(4000)
    narrow = torch.special.ndtr((found["labels"] - found["mean"]) / (0.5 * found["variance"].sqrt()))
    assert prediction_intervals.calibration_error(narrow) > 0.08


def test_infinite_intervals_hold_everything():
    ends = torch.full((3,), math.inf)
    assert prediction_intervals.interval_coverage(-ends, ends, torch.tensor([0.0, 1.0, -1e9])) == 1
    assert prediction_intervals.interval_width(-ends, ends) == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, o: regression.gaussian_nll(z, -o, z), "variance: expected positive"),
        (lambda z, o: regression.mixture_nll(z[None], o[None] * 0, z), "variance: expected positive"),
        (lambda z, o: prediction_intervals.interval_coverage(o, z, z), "lower <= upper"),
        (lambda z, o: prediction_intervals.calibration_error(2 * o), "pit: expected probabilities"),
        (lambda z, o: regression.mixture_nll(z[None], o[None], z, weights=2 * o[None]), "add up to 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message: str):
    with pytest.raises(DataError, match=message):
        call(torch.zeros(3), torch.ones(3))


def test_options():
    with pytest.raises(OptionError, match="error"):
        prediction_intervals.interval_score(torch.zeros(1), torch.ones(1), torch.ones(1), error=1.0)
    with pytest.raises(OptionError, match="points"):
        prediction_intervals.calibration_curve(torch.ones(1), points=0)


def test_student_nll_and_crps_are_scipys_and_the_integral():
    nu, mean, scale, label = 3.7, 0.4, 1.3, 2.0
    given = [torch.tensor([value], dtype=torch.float64) for value in (nu, mean, scale, label)]
    theirs = stats.t(nu, mean, scale)
    assert float(regression.student_nll(*given)) == pytest.approx(-theirs.logpdf(label))
    below, _ = integrate.quad(lambda x: theirs.cdf(x) ** 2, -np.inf, label)
    above, _ = integrate.quad(lambda x: (theirs.cdf(x) - 1) ** 2, label, np.inf)
    assert float(regression.student_crps(*given)) == pytest.approx(below + above)


def test_student_becomes_gaussian_with_many_degrees_of_freedom():
    generator = torch.Generator().manual_seed(0)
    mean, labels = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    scale, freedom = torch.ones_like(mean), torch.full_like(mean, 1e6)
    torch.testing.assert_close(
        regression.student_crps(freedom, mean, scale, labels),
        regression.gaussian_crps(mean, scale, labels),
        rtol=1e-4,
        atol=0,
    )
    torch.testing.assert_close(
        regression.student_nll(freedom, mean, scale, labels),
        regression.gaussian_nll(mean, scale, labels),
        rtol=1e-4,
        atol=0,
    )


def test_sample_crps_is_fair_and_that_of_all_pairs():
    generator = torch.Generator().manual_seed(1)
    samples, labels = torch.randn(7, 3, generator=generator).double(), torch.randn(3, generator=generator).double()
    pairs = (samples[:, None] - samples[None]).abs().sum((0, 1)) / (2 * 7 * 6)
    by_hand = (samples - labels).abs().mean(0) - pairs
    torch.testing.assert_close(regression.sample_crps_of_each(samples, labels), by_hand)
    # its expectation is the CRPS whatever the number of samples: two are enough
    drawn = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    mean = regression.sample_crps(drawn, torch.full((200_000,), 0.5, dtype=torch.float64))
    exact = regression.gaussian_crps(*(torch.tensor([v], dtype=torch.float64) for v in (0.0, 1.0, 0.5)))
    assert float(mean) == pytest.approx(float(exact), abs=0.006)


def test_pinball_by_hand_and_half_the_crps_over_all_levels():
    quantiles = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    label = torch.tensor([2.0], dtype=torch.float64)
    assert float(regression.pinball(quantiles, label, levels=(0.5, 0.9))) == pytest.approx((0.5 * 2 + 0.9 * 1) / 2)
    levels = [(k + 0.5) / 2000 for k in range(2000)]
    normal = torch.from_numpy(stats.norm.ppf(levels))[:, None]
    exact = regression.gaussian_crps(*(torch.tensor([v], dtype=torch.float64) for v in (0.0, 1.0, 2.0)))
    assert 2 * float(regression.pinball(normal, label, levels=levels)) == pytest.approx(float(exact), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda one: regression.student_nll(-one, one, one, one), "positive"),
        (lambda one: regression.student_crps(one, one, one, one), "more than 1"),
        (lambda one: regression.sample_crps(one[None], one), "at least two"),
        (lambda one: regression.pinball(one[None], one, levels=(0.1, 0.9)), "one row for each level"),
    ],
)
def test_what_is_no_prediction_is_refused_by_the_newer_scores(call, word):
    with pytest.raises(DataError, match=word):
        call(torch.ones(3))
