"""The mixture of a regression ensemble: its moments, its quantiles, and the split of its variance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from tests.conftest import shapes_unchecked

from caveat.errors import DataError, OptionError
from caveat.scores import FROM_GAUSSIANS, regression
from caveat.scores.regression import Gaussians, Mixture


def draws(seed: int, s: int = 4, n: int = 5):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(s, n, generator=generator, dtype=torch.float64)
    return mean, torch.rand(s, n, generator=generator, dtype=torch.float64) + 0.1


@given(st.integers(0, 100))
def test_total_is_aleatoric_plus_epistemic_and_the_variance_of_the_mixture(seed: int):
    mean, variance = draws(seed)
    found = regression.split(mean, variance)
    second = (variance + mean**2).mean(0)
    assert torch.allclose(found.total, second - found.mean**2, atol=1e-12)
    assert torch.equal(found.total, found.aleatoric + found.epistemic)
    assert bool((found.epistemic >= 0).all())
    # the order of the draws is nothing; shifting all labels moves the mean alone
    again = regression.split(mean.flip(0) + 3, variance.flip(0))
    assert torch.allclose(again.mean, found.mean + 3)
    assert torch.allclose(again.epistemic, found.epistemic, atol=1e-12)


def test_moments_by_integration():
    mean, variance = draws(1, 3, 1)
    found = regression.split(mean, variance)

    def density(y: float) -> float:
        return float(stats.norm.pdf(y, mean[:, 0].numpy(), variance[:, 0].sqrt().numpy()).mean())

    first = integrate.quad(lambda y: y * density(y), -15, 15, epsabs=1e-12)[0]
    second = integrate.quad(lambda y: (y - first) ** 2 * density(y), -15, 15, epsabs=1e-12)[0]
    entropy = integrate.quad(lambda y: -density(y) * math.log(density(y) + 1e-300), -15, 15, epsabs=1e-10)[0]
    assert found.mean.item() == pytest.approx(first, abs=1e-9)
    assert found.total.item() == pytest.approx(second, rel=1e-9)
    assert regression.entropy_bound(mean, variance).item() >= entropy


@pytest.mark.parametrize("name", FROM_GAUSSIANS)
def test_scores_of_gaussians(name: str):
    mean, variance = draws(2, 6, 50)
    score = FROM_GAUSSIANS[name](mean, variance)
    assert score.shape == (50,)
    assert score.dtype == torch.float64
    alone = FROM_GAUSSIANS[name](mean[:, 7:9], variance[:, 7:9])  # independent of the batch
    assert torch.allclose(alone, score[7:9], atol=1e-14)
    wider = FROM_GAUSSIANS[name](3 * mean, 9 * variance)  # of the same labels in other units
    assert torch.allclose(wider, score + math.log(3) if name == "entropy_bound" else 9 * score, rtol=1e-12)


def test_identical_draws_have_no_doubt_and_the_bound_is_exact_for_one():
    mean, variance = draws(3, 1, 4)
    same = regression.split(mean.expand(5, 4), variance.expand(5, 4))
    assert same.epistemic.abs().max() < 1e-30
    assert torch.allclose(same.aleatoric, variance[0])
    bound = regression.entropy_bound(mean, variance)
    assert bound.tolist() == pytest.approx([stats.norm(scale=math.sqrt(v)).entropy() for v in variance[0].tolist()])


@given(st.integers(0, 50), st.floats(0.001, 0.999))
def test_quantile_inverts_the_cdf(seed: int, level: float):
    mean, variance = draws(seed)
    mixture = Gaussians(mean, variance)
    found = regression.quantile(mixture, level)
    assert torch.allclose(regression.cdf(mixture, found), torch.full((5,), level, dtype=torch.float64), atol=1e-12)


def test_quantile_and_interval_by_root_finding():
    mean, variance = draws(5, 3, 1)
    law = [stats.norm(m, math.sqrt(v)) for m, v in zip(mean[:, 0].tolist(), variance[:, 0].tolist(), strict=True)]
    low, high = regression.interval(Gaussians(mean, variance), error=0.2)
    for level, found in ((0.1, low), (0.9, high)):
        root = optimize.brentq(lambda y, level=level: sum(one.cdf(y) for one in law) / 3 - level, -20, 20)
        assert found.item() == pytest.approx(root, abs=1e-9)
    one = Gaussians(mean[0], variance[0])
    assert regression.quantile(one, 0.975).item() == pytest.approx(law[0].ppf(0.975), abs=1e-9)
    float32 = Gaussians(mean.float(), variance.float())
    assert regression.quantile(float32, 0.3).dtype == torch.float32


def test_outputs_of_networks():
    outputs = torch.tensor([[[1.0, 0.0], [2.0, math.log(4.0)]]], dtype=torch.float64)
    found = regression.from_gaussians(outputs)
    assert found.mean.tolist() == [[1.0, 2.0]]
    assert found.variance.tolist()[0] == pytest.approx([1.0, 4.0], rel=1e-5)
    # two components 1/4 and 3/4 at 0 and 4 of variance 1 and 4: mean 3, variance 0.25*10 + 0.75*5
    density = torch.tensor([[0.0, math.log(3.0), 0.0, 4.0, 0.0, math.log(4.0)]], dtype=torch.float64)
    mixture, own = regression.from_densities(density)
    assert mixture.weight[:, 0].tolist() == pytest.approx([0.25, 0.75])
    assert own.mean.tolist() == pytest.approx([3.0])
    assert own.variance.tolist() == pytest.approx([6.25], rel=1e-5)
    both, members = regression.from_densities(torch.stack([density, density]))
    assert both.weight.sum(0).item() == pytest.approx(1)
    assert both.mean.shape == (4, 1)
    assert members.mean.shape == (2, 1)
    grid = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    assert torch.allclose(regression.cdf(both, grid), regression.cdf(mixture, grid))
    for level in (0.2, 0.8):
        assert regression.cdf(mixture, regression.quantile(mixture, level)).item() == pytest.approx(level)


def test_what_cannot_be_is_refused():
    mean, variance = draws(0)
    with shapes_unchecked(), pytest.raises(DataError, match="last axis of 2"):
        regression.from_gaussians(torch.zeros(3, 4))
    with shapes_unchecked(), pytest.raises(DataError, match="last axis"):
        regression.from_densities(torch.zeros(3, 4))
    with pytest.raises(DataError, match="variance"):
        regression.split(mean, -variance)
    assert (regression.split(mean, 0 * variance).aleatoric == 0).all()  # networks without noise of their own are none
    with pytest.raises(DataError, match="at least one draw"):
        regression.split(mean[:0], variance[:0])
    for level in (0.0, 1.0):
        with pytest.raises(OptionError, match="level"):
            regression.quantile(Gaussians(mean, variance), level)
    with pytest.raises(OptionError, match="error"):
        regression.interval(Mixture(torch.full_like(mean, 0.25), mean, variance), error=0.0)
