"""Scores where numbers are few, tie, or are zero by algebra: right, or refused in a sentence."""

import numpy as np
import pytest
import torch

import caveat
from caveat import calibration, scores
from caveat.audits import audit_arrays
from caveat.errors import DataError, OptionError

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(500, 10, generator=GENERATOR) + 24.0 * torch.nn.functional.one_hot(torch.arange(500) % 10, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*scores.FROM_LOGITS, *scores.FROM_RAW_LOGITS])
def test_half_precision_logits_are_scored_in_single_precision(name, dtype):
    """In float16 the smallest scores tied at 0: AUROC 0.72 where 0.9995 is right."""
    score, given = (scores.FROM_LOGITS | scores.FROM_RAW_LOGITS)[name], LOGITS.to(dtype)
    torch.testing.assert_close(score(given), score(given.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", list(scores.FROM_DRAWS))
def test_half_precision_draws_are_scored_in_single_precision(name):
    draws = torch.randn(5, 60, 10, generator=GENERATOR).mul(8).half()
    torch.testing.assert_close(scores.FROM_DRAWS[name](draws), scores.FROM_DRAWS[name](draws.float()))


@pytest.mark.parametrize("name", list(scores.FROM_HEAD))
def test_half_precision_features_are_no_basis_of_a_fit(name):
    """ViM took its residual for rounding, and was silently the energy."""
    features, labels = torch.randn(200, 16, generator=GENERATOR).bfloat16(), torch.arange(200) % 4
    head = torch.randn(4, 16, generator=GENERATOR).bfloat16(), torch.zeros(4, dtype=torch.bfloat16)
    with pytest.raises(DataError, match=r"expected single or double precision, got torch.bfloat16.*\.float\(\)"):
        scores.FROM_HEAD[name](features, labels, head)


@pytest.mark.parametrize(("smallest", "k"), [(21, 5), (3, 1), (1000, 50)])
def test_knn_looks_no_further_than_the_smallest_class(smallest, k):
    """Of a class of 21 every sample had its 50th neighbour in another class, and passed for OOD."""
    labels = torch.cat([torch.zeros(smallest), torch.ones(1000)]).long()
    features = torch.randn(len(labels), 8, generator=GENERATOR) + 9 * torch.nn.functional.one_hot(labels, 8)
    score = scores.knn.fit(features, labels)
    assert score.k == k
    assert score(features[:smallest]).max() < 1  # the other class is 1.4 away


def test_a_score_that_overflows_is_left_out_with_a_sentence():
    """Features of 1e-27 have variances of 1e-54: one score's NaN stopped the default audit."""
    network = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    with torch.no_grad():
        network[0].weight.normal_(generator=GENERATOR).mul_(1e-27)
        network[0].bias.zero_()
    test = [(torch.rand(200, 12, generator=GENERATOR), torch.arange(200) % 4)]
    record = caveat.audit(network, test, replicas=2)
    assert any("gaussian_mixture gives NaN or infinity for" in note for note in record.notes)
    names = {score.name for score in record.scores}
    assert names >= {"msp", "knn"}
    assert "gaussian_mixture" not in names
    with pytest.raises(OptionError, match="gaussian_mixture gives NaN"):
        caveat.audit(network, test, scores=["gaussian_mixture"], replicas=2)


@pytest.mark.parametrize("scale", [1e20, 1e100])
def test_logits_of_a_diverged_network_are_audited_without_what_cannot_be_fitted(scale, tmp_path):
    """One calibration divided by zero, another never ended."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 400)
    np.savez(tmp_path / "l.npz", logits=generator.normal(size=(400, 5)) * scale, labels=labels)
    record = audit_arrays(tmp_path / "l.npz", replicas=2)
    assert {"none", "temperature"} <= {one.name for one in record.calibrations}
    for name in ("vector", "matrix", "dirichlet"):
        assert any(name in note and "the network diverged" in note for note in record.notes)


def test_inputs_seen_before_are_at_distance_zero_in_any_batch():
    """Rounding of 1e-8 that changes with the batch stood on both sides of a threshold: 0 % accepted at batch 1."""
    bank = torch.randn(8, 64, generator=GENERATOR)[torch.arange(400) % 8]
    score = scores.knn.fit(bank, torch.arange(400) % 4, k=10)
    shaken = bank * (1 + 5e-8 * torch.randn(bank.shape, generator=GENERATOR))
    assert score(shaken).max() == 0
    assert score(bank + 1e-3).min() > 0


@pytest.mark.parametrize(("apart", "right"), [(10.0, 0.01), (1e4, 1.0)])
def test_temperature_of_separable_logits(apart, right):
    """The docstring said 0.01 of all; a likelihood that is 1 already cannot grow."""
    labels = torch.arange(80) % 4
    found = calibration.temperature.fit(apart * torch.eye(4)[labels], labels).temperature
    assert float(found) == pytest.approx(right)
