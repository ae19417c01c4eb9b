"""What is special about each feature score, against plain NumPy in float64."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from tests.contracts.test_scores import gaussian_classes

from caveat.errors import OptionError
from caveat.scores import knn, mahalanobis, moments, relative_mahalanobis, vim


@pytest.fixture
def sample(generator):
    return gaussian_classes(generator)


def distances(x, means, covariance):
    precision = np.linalg.inv(covariance)
    return np.stack([np.einsum("nd,de,ne->n", x - m, precision, x - m) for m in means], axis=1)


def class_statistics(x, y):
    means = np.stack([x[y == k].mean(0) for k in np.unique(y)])
    centred = x - means[np.searchsorted(np.unique(y), y)]
    return means, centred.T @ centred / len(x)


def test_mahalanobis_is_the_formula(sample):
    features, labels, _ = sample
    x, y = features.numpy(), labels.numpy()
    means, covariance = class_statistics(x, y)
    expected = distances(x, means, covariance).min(axis=1)
    np.testing.assert_allclose(mahalanobis.fit(features, labels, ridge=0.0)(features), expected, rtol=1e-9)


def test_mahalanobis_is_a_chi_square_whatever_n(generator):
    # divided by n, an in-distribution sample's distance averages d; the scatter matrix of pytorch-ood 0.4.0 gives d / n
    for n in (2000, 8000):
        features = torch.randn(n, 6, generator=generator, dtype=torch.float64)
        score = mahalanobis.fit(features, torch.zeros(n, dtype=torch.long))
        assert score(features).mean().item() == pytest.approx(6, rel=1e-5)


def test_relative_mahalanobis_is_the_difference_of_two_distances(sample):
    features, labels, _ = sample
    x, y = features.numpy(), labels.numpy()
    means, covariance = class_statistics(x, y)
    background = distances(x, [x.mean(0)], np.cov(x.T, bias=True))[:, 0]
    expected = distances(x, means, covariance).min(axis=1) - background
    actual = relative_mahalanobis.fit(features, labels, ridge=0.0)(features)
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-8)


def test_labels_need_not_be_consecutive(sample):
    features, labels, _ = sample
    a, b = mahalanobis.fit(features, labels), mahalanobis.fit(features, labels * 5 + 2)
    torch.testing.assert_close(a(features), b(features), rtol=1e-12, atol=0)


def test_moments_merge_to_the_moments_of_all(sample):
    features, labels, _ = sample
    whole = moments.of(features, labels)
    first, second = slice(0, 90), slice(90, None)
    parts = moments.merge(moments.of(features[first], labels[first]), moments.of(features[second], labels[second]))
    for name in ("counts", "means", "scatter"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10)
    only_two = moments.of(features[labels < 2], labels[labels < 2])
    rest = moments.of(features[labels >= 2], labels[labels >= 2])
    torch.testing.assert_close(moments.merge(rest, only_two).scatter, whole.scatter, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(whole.total, np.cov(features.numpy().T, bias=True), rtol=1e-10, atol=1e-12)


def test_knn_is_scikit_learns(sample):
    features, labels, _ = sample
    unit = torch.nn.functional.normalize(features, dim=1).numpy()
    queries = torch.nn.functional.normalize(features.flip(1), dim=1).numpy()
    expected = NearestNeighbors(n_neighbors=7).fit(unit).kneighbors(queries)[0][:, -1]
    np.testing.assert_allclose(knn.fit(features, labels, k=7)(features.flip(1)), expected, rtol=1e-7, atol=1e-7)


def test_knn_does_not_depend_on_the_length_of_features_and_limits_its_bank(sample):
    features, labels, _ = sample
    score = knn.fit(features, labels, limit=100)
    assert len(score.bank) == 100
    torch.testing.assert_close(score(features), score(5 * features), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("k", [0, 401])
def test_knn_refuses_a_k_outside_its_bank(sample, k):
    features, labels, _ = sample
    with pytest.raises(OptionError, match=r"k: expected a number of neighbours in \[1, 400\]"):
        knn.fit(features, labels, k=k)


def test_vim_is_the_formula(sample):
    features, labels, (weight, bias) = sample
    x, w, b = features.numpy(), weight.numpy(), bias.numpy()
    origin = -np.linalg.pinv(w) @ b
    _, vectors = np.linalg.eigh((x - origin).T @ (x - origin) / len(x))
    residual = np.linalg.norm((x - origin) @ vectors[:, :7], axis=1)  # 12 features, 5 principal
    logits = x @ w.T + b
    alpha = logits.max(1).mean() / residual.mean()
    expected = alpha * residual - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) - logits.max(1)
    actual = vim.fit(features, labels, (weight, bias), dimension=5)(features)
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dimension", [0, 12, 256])
def test_vim_refuses_a_dimension_that_leaves_no_residual(sample, dimension):
    # pytorch-ood 0.4.0 prints alpha = inf and goes on
    with pytest.raises(OptionError, match="dimension: expected a principal space of 1 to 11 of 12"):
        vim.fit(*sample, dimension=dimension)
