"""What every score of independent sigmoids promises."""

import pytest
import torch
from torch import Tensor

from caveat.scores import FROM_SIGMOIDS, multilabel


def logits(*, sure: float = 4.0, n: int = 60, s: int = 5, seed: int = 0) -> Tensor:
    """`(s, n, 6)`: some labels are there, others not, as sure as said; the networks disagree the more the less sure."""
    generator = torch.Generator().manual_seed(seed)
    side = (torch.rand(n, 6, generator=generator) < 0.4).double() * 2 - 1
    side[:, 0] = 1  # every input has a label
    return sure * side + torch.randn(s, n, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", FROM_SIGMOIDS)
class TestFromSigmoids:
    def test_undecided_networks_are_less_trustworthy(self, name):
        near, far = FROM_SIGMOIDS[name](logits()), FROM_SIGMOIDS[name](logits(sure=0.5, seed=1))
        assert near.shape == (60,)
        assert near.dtype == torch.float64
        assert far.median() > near.quantile(0.9)

    @pytest.mark.parametrize("batch", [1, 7])
    def test_a_sample_does_not_see_the_others(self, name, batch):
        given = logits()
        alone = torch.cat([FROM_SIGMOIDS[name](part) for part in given.split(batch, dim=1)])
        torch.testing.assert_close(alone, FROM_SIGMOIDS[name](given), rtol=1e-12, atol=0)

    def test_order_of_networks_and_labels_is_irrelevant(self, name):
        given = logits()
        torch.testing.assert_close(FROM_SIGMOIDS[name](given.flip(0).flip(2)), FROM_SIGMOIDS[name](given))

    def test_it_is_finite_however_sure_the_network_is(self, name):
        assert torch.isfinite(FROM_SIGMOIDS[name](logits(sure=1e4))).all()


def test_of_one_network_disagreement_is_unknown():
    assert {name: score(logits(s=1)) is None for name, score in FROM_SIGMOIDS.items()} == {
        "joint_energy": False, "max_label": False, "binary_entropy": False, "label_disagreement": True,
    }  # fmt: skip


def test_the_mean_logits_are_those_of_the_mean_probabilities():
    given = logits()
    torch.testing.assert_close(multilabel.mean_logits(given).sigmoid(), given.sigmoid().mean(dim=0))
    assert torch.equal(multilabel.mean_logits(given[:1]), given[0])
    # equal networks do not disagree
    assert multilabel.label_disagreement(given[:1].repeat(3, 1, 1)).abs().max() < 1e-12
