"""Weighted energy and KL matching. OpenMax has a file of its own."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import entropy
from tests.conftest import shapes_unchecked
from tests.scores.conftest import softmax, tensor

from caveat.errors import OptionError
from caveat.scores import kl_matching, weighted_energy
from caveat.scores.logits import energy


@pytest.fixture
def logits(relu_sample):
    features, labels, (weight, bias) = relu_sample
    return features @ weight.T + bias, labels


def test_golden():
    x = tensor([0, math.log(2)])
    one = torch.zeros(1, dtype=torch.long)
    weighted = weighted_energy.fit(x, one, weights=tensor(1, 3))
    assert weighted(x).item() == pytest.approx(-math.log(1 + 3 * 2))
    # three of class 0 and one of class 1: weights 4 / (2 * 3) and 4 / (2 * 1)
    rare = weighted_energy.fit(x.repeat(4, 1), torch.tensor([0, 0, 0, 1]))
    assert rare(x).item() == pytest.approx(-math.log(2 / 3 + 2 * 2))
    # typical answers (.9, .1) and (.2, .8); (.5, .5) is nearer to the second
    typical = tensor([0.9, 0.1], [0.2, 0.8]).log()
    found = kl_matching.fit(typical, torch.tensor([1, 1]))(tensor([0, 0])).item()
    assert found == pytest.approx(0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8))


def test_weighted_energy_is_the_formula(logits):
    seen, labels = logits
    weights = tensor(0.5, 2.0, 0.1, 1.0)
    expected = -logsumexp(seen.numpy(), b=weights.numpy(), axis=1)
    np.testing.assert_allclose(weighted_energy.fit(seen, labels, weights=weights)(seen), expected, rtol=1e-12)
    counts = np.array([30, 60, 60, 60])
    chosen = torch.cat([torch.arange(240)[labels == k][:n] for k, n in enumerate(counts)])
    expected = -logsumexp(seen.numpy(), b=210 / (4 * counts), axis=1)
    np.testing.assert_allclose(weighted_energy.fit(seen[chosen], labels[chosen])(seen), expected, rtol=1e-12)


def test_with_balanced_classes_it_is_the_energy(logits):
    seen, labels = logits
    torch.testing.assert_close(weighted_energy.fit(seen, labels)(seen), energy(seen), rtol=1e-12, atol=1e-12)


def test_a_class_of_negative_weight_counts_for_nothing_however_large_its_logit(logits):
    weighted = weighted_energy.fit(*logits, weights=tensor(1, -2, 0, 1))
    x = tensor([1, 1e5, 1e5, 2])
    assert weighted(x).item() == pytest.approx(-math.log(math.e + math.e**2))
    assert weighted(tensor([300, 0, 0, 0])).item() == -300  # pytorch-ood 0.4.0 overflows at 89


def test_dense_logits(logits):
    weighted = weighted_energy.fit(*logits, weights=tensor(1, 2, 3, 4))
    maps = logits[0].view(2, 10, 12, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(weighted(maps).flatten(), weighted(logits[0]))


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.0, -1.0, 0.0, 0.0], [1.0, math.nan, 1.0, 1.0]])
def test_weights_are_checked(logits, weights):
    with shapes_unchecked(), pytest.raises(OptionError, match="weights: expected 4 numbers, finite and some positive"):
        weighted_energy.fit(*logits, weights=torch.tensor(weights))


def test_kl_matching_is_scipys_divergence(logits):
    seen, labels = logits
    probs = softmax(seen.numpy())
    predicted = probs.argmax(axis=1)
    typical = [probs[predicted == k].mean(axis=0) for k in np.unique(predicted)]
    unusual = softmax(0.3 * seen.numpy() + 0.2)
    expected = np.min([[entropy(p, d) for d in typical] for p in unusual], axis=1)
    np.testing.assert_allclose(kl_matching.fit(seen, labels)(0.3 * seen + 0.2), expected, rtol=1e-8, atol=1e-12)


def test_kl_matching_does_not_use_labels_and_leaves_out_what_is_never_predicted(logits):
    seen, labels = logits
    never = seen.clone()
    never[:, 2] = -1e4
    score = kl_matching.fit(never, labels)
    assert len(score.log_typical) == 3
    torch.testing.assert_close(score(seen), kl_matching.fit(never, labels.flip(0))(seen), rtol=0, atol=0)
    # an answer of the class that was never probable is as far away as numbers go, not infinite
    far = score(tensor([0, 0, 1e4, 0]))
    assert torch.isfinite(far).all()
    assert far.item() > 500
