"""Cosine, fDBD, NCI and SHE: angles and distances to weights and means."""

import math

import numpy as np
import pytest
import torch
from tests.scores.conftest import tensor

from caveat.errors import OptionError
from caveat.scores import cosine, fdbd, nci, she

HEAD = (tensor([1, 0], [0, 1], [0, 0]), torch.zeros(3, dtype=torch.float64))
CENTRED = tensor([1, 0], [0, 1], [-1, -1])  # mean 0
LABELS = torch.tensor([0, 1, 2])
X = tensor([3, 4])


def test_golden():
    assert cosine.fit(CENTRED, LABELS)(X).item() == pytest.approx(1 - 4 / 5)
    # logits 3 4 0: one step of (4 - 3) / sqrt 2 and one of 4 / 1, from a feature of length 5
    assert fdbd.fit(CENTRED, LABELS, HEAD)(X).item() == pytest.approx(-(1 / math.sqrt(2) + 4) / 2 / 5)
    assert nci.fit(CENTRED, LABELS, HEAD)(X).item() == pytest.approx(-4 / 5)
    assert nci.fit(CENTRED, LABELS, HEAD, alpha=0.1)(X).item() == pytest.approx(-4 / 5 - 0.7)
    # class 1 answers (0, 1) and (0, 3) rightly, (3, 1) wrongly: its pattern is (0, 2)
    features = torch.cat([CENTRED, tensor([0, 3], [3, 1])])
    score = she.fit(features, torch.tensor([0, 1, 2, 1, 1]), HEAD)
    assert score(X).item() == pytest.approx(-8)


def test_the_formulas(relu_sample, queries, as_numpy):
    known, labels, w, b, x = as_numpy
    features = relu_sample[:2]
    means = np.stack([known[labels == k].mean(axis=0) for k in range(len(w))])
    active, some = x[1:], queries[1:]  # the angle of a feature of length 0 is another test's matter
    cosines = active @ means.T / np.outer(np.linalg.norm(active, axis=1), np.linalg.norm(means, axis=1))
    np.testing.assert_allclose(cosine.fit(*features)(some), 1 - cosines.max(axis=1), rtol=1e-9)
    logits, centred = x @ w.T + b, x - known.mean(axis=0)
    predicted, length = logits.argmax(axis=1), np.linalg.norm(centred, axis=1)
    expected = []
    for row, k, distance in zip(logits, predicted, length, strict=True):
        others = [c for c in range(len(w)) if c != k]
        steps = [abs(row[k] - row[c]) / np.linalg.norm(w[k] - w[c]) for c in others]
        expected.append(-np.mean(steps) / distance)
    np.testing.assert_allclose(fdbd.fit(*relu_sample)(queries), expected, rtol=1e-10)
    along = (centred * w[predicted]).sum(axis=1) / length
    np.testing.assert_allclose(nci.fit(*relu_sample)(queries), -along, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        nci.fit(*relu_sample, alpha=0.3)(queries), -along - 0.3 * np.abs(x).sum(axis=1), rtol=1e-9, atol=1e-12
    )
    right = (known @ w.T + b).argmax(axis=1) == labels
    patterns = np.stack([known[right & (labels == k)].mean(axis=0) for k in range(len(w))])
    np.testing.assert_allclose(she.fit(*relu_sample)(queries), -(x * patterns[predicted]).sum(axis=1), rtol=1e-10)


def test_she_of_a_class_without_a_right_answer_or_without_samples(relu_sample, queries):
    features, labels, (weight, bias) = relu_sample
    never = bias.clone()
    never[1] = -1e6  # class 1 is never predicted: the mean of its samples stands for it
    score = she.fit(features, labels, (weight, never))
    torch.testing.assert_close(score.patterns[1], features[labels == 1].mean(dim=0))
    some = labels != 2  # class 2 does not occur: the mean of all
    score = she.fit(features[some], labels[some], (weight, bias))
    torch.testing.assert_close(score.patterns[2], features[some].mean(dim=0))
    assert torch.isfinite(score(queries)).all()


def test_fdbd_of_equal_rows_and_at_the_mean_is_finite(relu_sample, queries):
    features, labels, (weight, bias) = relu_sample
    twin, level = weight.clone(), bias.clone()
    twin[1], level[1] = twin[0], level[0] + 1e-3
    score = fdbd.fit(features, labels, (twin, level))
    assert torch.isfinite(score(queries)).all()
    assert torch.isfinite(score(features.mean(dim=0, keepdim=True))).all()
    single = fdbd.fit(features[:1].float(), labels[:1], (weight.float(), 100 * bias.float()))
    assert torch.isfinite(single(features[:1].float())).all()


def test_angles_of_nothing(relu_sample, queries):
    nothing = queries[:1]
    assert cosine.fit(*relu_sample[:2])(nothing).item() == 1  # at right angles to everything
    centred = nci.fit(*relu_sample)
    assert centred(centred.mean[None]).item() == 0


def test_cosine_and_nci_do_not_see_the_length_of_features(relu_sample, queries):
    score = cosine.fit(*relu_sample[:2])
    torch.testing.assert_close(score(queries), score(7 * queries), rtol=1e-9, atol=1e-12)
    features, labels, (weight, bias) = relu_sample
    scaled = nci.fit(7 * features, labels, (weight, 7 * bias))
    torch.testing.assert_close(scaled(7 * queries), nci.fit(*relu_sample)(queries), rtol=1e-9, atol=1e-12)


def test_options(relu_sample):
    with pytest.raises(OptionError, match="alpha: expected a number of at least 0"):
        nci.fit(*relu_sample, alpha=-1.0)
