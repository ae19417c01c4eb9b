"""Gaussian mixture and both Mahalanobis distances: likelihoods of SciPy, and data that leave no inverse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from tests.scores.conftest import tensor

from caveat.errors import OptionError
from caveat.scores import gaussian_mixture, mahalanobis, moments, relative_mahalanobis

FITS = [mahalanobis.fit, relative_mahalanobis.fit, gaussian_mixture.fit]


def test_golden():
    # one feature, one class at -1 and 1: N(0, 1) at 2 is 2 + log(2 pi) / 2 nats
    two, one = tensor([-1], [1]), torch.zeros(2, dtype=torch.long)
    x = tensor([2])
    assert gaussian_mixture.fit(two, one, ridge=0.0)(x).item() == pytest.approx(2 + 0.5 * math.log(2 * math.pi))
    assert mahalanobis.fit(two, one, ridge=0.0)(x).item() == pytest.approx(4)
    assert mahalanobis.fit(two, one, ridge=1.0)(x).item() == pytest.approx(2)  # variance 1 and ridge 1
    # classes at 0, 2 and 8, 10: variance 1 within, 16 between; at 12: 3^2 to the nearer mean, 7^2 / 17 to that of all
    four, labels = tensor([0], [2], [8], [10]), torch.tensor([0, 0, 1, 1])
    found = relative_mahalanobis.fit(four, labels, ridge=0.0)(tensor([12])).item()
    assert found == pytest.approx(9 - 49 / 17)


def test_noise_is_that_of_single_operations():
    # features 1, 3 and 10, 10: variances 1 and 0, means 2 and 10
    found = moments.of(tensor([1, 10], [3, 10]), torch.tensor([0, 1])).noise.item()
    eps = torch.finfo(torch.float64).eps
    assert found == pytest.approx((moments.OPERATIONS * eps) ** 2 * ((1 + 0) / 2 + (4 + 100) / 2), abs=0)


def test_mixture_is_scipys_likelihood(relu_sample, queries, as_numpy):
    known, labels, _, _, x = as_numpy
    terms = []
    for k in range(4):
        own = known[labels == k]
        normal = multivariate_normal(own.mean(axis=0), np.cov(own.T, bias=True))
        terms.append(np.log(len(own) / len(known)) + normal.logpdf(x))
    expected = -logsumexp(np.stack(terms), axis=0)
    actual = gaussian_mixture.fit(*relu_sample[:2], dimension=10, ridge=0.0)(queries)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_mixture_in_a_subspace_is_scipys_likelihood_too(relu_sample, queries, as_numpy):
    # in the 6 directions of largest variance every class has its own covariance, in the other 4 all have one variance
    known, labels, _, _, x = as_numpy
    values, vectors = np.linalg.eigh(np.cov(known.T, bias=True))
    inside, outside, mean = vectors[:, 4:], vectors[:, :4], known.mean(axis=0)
    terms = []
    for k in range(4):
        own = known[labels == k] @ inside
        covariance = inside @ np.cov(own.T, bias=True) @ inside.T + values[:4].mean() * outside @ outside.T
        centre = mean + inside @ (own.mean(axis=0) - mean @ inside)
        terms.append(np.log(np.mean(labels == k)) + multivariate_normal(centre, covariance).logpdf(x))
    expected = -logsumexp(np.stack(terms), axis=0)
    actual = gaussian_mixture.fit(*relu_sample[:2], dimension=6, ridge=0.0)(queries)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@given(scale=st.floats(1e-4, 1e4))
def test_the_unit_of_features_is_irrelevant(scale):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(120, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(120) % 3
    features += labels[:, None]
    for fit in (mahalanobis.fit, relative_mahalanobis.fit):
        torch.testing.assert_close(fit(features * scale, labels)(features * scale), fit(features, labels)(features),
                                   rtol=1e-7, atol=1e-7)  # fmt: skip
    # a density changes by the logarithm of the unit, once per feature
    for dimension in (3, 6):
        plain = gaussian_mixture.fit(features, labels, dimension=dimension)(features)
        scaled = gaussian_mixture.fit(features * scale, labels, dimension=dimension)(features * scale)
        torch.testing.assert_close(scaled, plain + 6 * math.log(scale), rtol=1e-7, atol=1e-7)


def test_single_precision_at_any_scale(relu_sample):
    # with all directions kept, what is left outside is rounding of large squares: it must not count
    features, labels = 1e4 * relu_sample[0], relu_sample[1]
    exact = gaussian_mixture.fit(features, labels, ridge=0.0)(features)
    single = gaussian_mixture.fit(features.float(), labels, ridge=0.0)(features.float())
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-3)


@given(seed=st.integers(0, 2**31))
def test_mahalanobis_does_not_change_under_any_linear_map(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(80, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(80) % 3
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64) + 3 * torch.eye(5, dtype=torch.float64)
    mixed = features @ mixing + 7
    for fit in (mahalanobis.fit, relative_mahalanobis.fit):
        a, b = fit(features, labels, ridge=0.0)(features), fit(mixed, labels, ridge=0.0)(mixed)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def hard_sets():
    generator = torch.Generator().manual_seed(9)
    features = torch.randn(60, 8, generator=generator)
    labels = torch.arange(60) % 4
    return {
        "one sample of each class": (features[:4], labels[:4]),
        "one sample": (features[:1], labels[:1]),
        "classes of one point each": (features[:4].repeat(15, 1), labels),
        "nothing active": (torch.zeros(60, 8), labels),
        "fewer samples than features": (features[:6], labels[:6] % 2),
        "a class missing": (features[labels != 1], labels[labels != 1]),
        "two equal features": (features[:, [0, 0, 1, 2, 3, 3, 4, 5]], labels),
    }


@pytest.mark.parametrize("case", hard_sets())
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_covariances_are_no_obstacle(case, fit, dtype):
    features, labels = hard_sets()[case]
    score = fit(features.to(dtype), labels)
    near, far = score(features.to(dtype)), score(torch.full((3, 8), 50.0, dtype=dtype))
    assert torch.isfinite(near).all()
    assert torch.isfinite(far).all()
    if fit is not relative_mahalanobis.fit:  # relative to a background that is as narrow, far is not farther
        assert far.min() > near.max()


@pytest.mark.parametrize("fit", FITS)
def test_without_a_ridge_a_singular_covariance_is_refused(fit):
    features, labels = hard_sets()["two equal features"]
    with pytest.raises(OptionError, match="ridge: the features' covariance is singular with 0"):
        fit(features.double(), labels, ridge=0.0)
    with pytest.raises(OptionError, match="ridge: expected a number of at least 0, got -1"):
        fit(features, labels, ridge=-1.0)


def test_mixture_needs_a_direction(relu_sample):
    with pytest.raises(OptionError, match="dimension: expected a positive number, got 0"):
        gaussian_mixture.fit(*relu_sample[:2], dimension=0)
