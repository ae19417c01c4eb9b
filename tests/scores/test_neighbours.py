"""What `knn` and `nnguide` share: a bank, searched in chunks."""

import math

import numpy as np
import pytest
import torch
from tests.scores.conftest import energy, tensor

from caveat import sampling
from caveat.errors import OptionError
from caveat.scores import knn, nnguide


def test_golden():
    bank, labels = tensor([2, 0], [0, 5]), torch.tensor([0, 1])
    x = tensor([3, 4])  # of length 1: (.6, .8)
    assert knn.fit(bank, labels, k=1)(x).item() == pytest.approx(math.sqrt(0.6**2 + 0.2**2))
    assert knn.fit(bank, labels, k=2)(x).item() == pytest.approx(math.sqrt(0.4**2 + 0.8**2))
    # with the identity as head E(2, 0) = log(e^2 + 1), E(0, 5) = log(e^5 + 1), E(3, 4) = log(e^3 + e^4)
    head = (torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    first, second = math.log(math.exp(2) + 1), math.log(math.exp(5) + 1)
    own = math.log(math.exp(3) + math.exp(4))
    assert nnguide.fit(bank, labels, head, k=1)(x).item() == pytest.approx(-own * 0.8 * second)
    assert nnguide.fit(bank, labels, head, k=2)(x).item() == pytest.approx(-own * (0.6 * first + 0.8 * second) / 2)


@pytest.mark.parametrize("k", [1, 6, 240])
def test_nnguide_is_the_formula(relu_sample, queries, as_numpy, k):
    known, _, w, b, x = as_numpy
    bank = known / np.linalg.norm(known, axis=1, keepdims=True) * -energy(known @ w.T + b)[:, None]
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    guidance = np.sort(unit @ bank.T, axis=1)[:, -k:].mean(axis=1)
    np.testing.assert_allclose(nnguide.fit(*relu_sample, k=k)(queries), guidance * energy(x @ w.T + b), rtol=1e-9)


@pytest.mark.parametrize("k", [1, 6, 240])
def test_knn_is_the_sorted_distance(relu_sample, queries, as_numpy, k):
    known, _, _, _, x = as_numpy
    known[5] = 0  # a feature of length 0 in the bank, and one among the queries
    unit = [a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-300) for a in (x, known)]
    distances = np.sort(np.linalg.norm(unit[0][:, None] - unit[1], axis=2), axis=1)
    actual = knn.fit(torch.from_numpy(known), relu_sample[1], k=k)(queries)
    np.testing.assert_allclose(actual, distances[:, k - 1], rtol=1e-9)


def test_near_neighbours_keep_their_digits():
    # 2 - 2 cos would give 0 or 3.5e-4 in float32
    direction = torch.nn.functional.normalize(torch.randn(1, 20, generator=torch.Generator().manual_seed(0)), dim=1)
    offset = torch.zeros(1, 20)
    offset[0, 0] = 1e-4
    score = knn.fit(direction, torch.zeros(1, dtype=torch.long), k=1)
    moved = (direction + offset).double()
    expected = (moved / moved.norm() - direction.double() / direction.double().norm()).norm()
    assert score(direction).item() < 1e-7
    assert score(direction + offset).item() == pytest.approx(expected.item(), rel=2e-3)


def test_chunks_change_nothing(relu_sample, queries, monkeypatch):
    whole = knn.fit(*relu_sample[:2], k=5)(queries), nnguide.fit(*relu_sample, k=5)(queries)
    for module in (knn, nnguide):
        monkeypatch.setattr(module, "CHUNK", 7)
    parts = knn.fit(*relu_sample[:2], k=5)(queries), nnguide.fit(*relu_sample, k=5)(queries)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert knn.fit(*relu_sample[:2])(queries[:0]).shape == (0,)
    assert nnguide.fit(*relu_sample)(queries[:0]).shape == (0,)


def test_a_thinned_bank_spans_the_whole_set():
    chosen = sampling.thinned(torch.arange(1000), 10)
    assert (chosen // 100).tolist() == list(range(10))
    assert torch.equal(sampling.thinned(chosen, 10), chosen)


@pytest.mark.parametrize(
    ("classes", "n", "limit"), [(10, 1000, 100), (10, 100_000, 1000), (7, 7000, 500), (100, 60_000, 5000)]
)
def test_a_thinned_bank_keeps_every_class_its_share(classes, n, limit):
    # one after the other or in turn; with a fixed step class 9 of 10 in turn would get 1 of 100 places
    turn, block = torch.arange(n) % classes, torch.arange(n) * classes // n
    for labels in (turn, block):
        share = torch.bincount(sampling.thinned(labels, limit), minlength=classes) * classes / limit
        assert share.min() > 0.7
        assert share.max() < 1.3


@pytest.mark.parametrize(("sizes", "k"), [((300, 8), 2), ((300, 3), 1), ((60, 60), 12), ((400, 300), 50)])
def test_the_default_k_of_knn_stays_within_the_smallest_class(sizes, k):
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    assert knn.fit(torch.rand(len(labels), 3), labels).k == k


def test_options(relu_sample):
    with pytest.raises(OptionError, match=r"k: expected a number of neighbours in \[1, 240\]"):
        nnguide.fit(*relu_sample, k=241)
    with pytest.raises(OptionError, match=r"k: expected a number of neighbours in \[1, 50\]"):
        nnguide.fit(*relu_sample, k=0, limit=50)
