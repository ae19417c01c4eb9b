"""What every score of the Gaussians of a regression network's draws promises."""

import math

import pytest
import torch
from torch import Tensor

from caveat.errors import DataError
from caveat.scores import FROM_GAUSSIANS
from tests.conftest import shapes_unchecked


def gaussians(*, spread: float = 1.0, n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Means and variances `(5, n)`: both the disagreement and the noise grow with `spread`."""
    generator = torch.Generator().manual_seed(seed)
    mean = 40 + spread * torch.randn(5, n, generator=generator, dtype=torch.float64)
    return mean, spread**2 * (0.5 + torch.rand(5, n, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", FROM_GAUSSIANS)
class TestFromGaussians:
    def test_wide_and_disagreeing_draws_are_less_trustworthy(self, name):
        near, far = FROM_GAUSSIANS[name](*gaussians()), FROM_GAUSSIANS[name](*gaussians(spread=4.0, seed=1))
        assert near.shape == (60,)
        assert far.median() > near.quantile(0.9)

    @pytest.mark.parametrize("batch", [1, 7])
    def test_a_sample_does_not_see_the_others(self, name, batch):
        mean, variance = gaussians()
        parts = zip(mean.split(batch, dim=1), variance.split(batch, dim=1), strict=True)
        alone = torch.cat([FROM_GAUSSIANS[name](*part) for part in parts])
        torch.testing.assert_close(alone, FROM_GAUSSIANS[name](mean, variance), rtol=1e-12, atol=0)

    def test_the_order_of_draws_and_the_labels_zero_are_irrelevant(self, name):
        mean, variance = gaussians()
        score = FROM_GAUSSIANS[name](mean, variance)
        torch.testing.assert_close(FROM_GAUSSIANS[name](mean.flip(0), variance.flip(0)), score, rtol=1e-12, atol=0)
        torch.testing.assert_close(FROM_GAUSSIANS[name](mean - 90, variance), score, rtol=1e-9, atol=0)

    def test_labels_in_other_units(self, name):
        mean, variance = gaussians()
        score, other = FROM_GAUSSIANS[name](mean, variance), FROM_GAUSSIANS[name](3 * mean, 9 * variance)
        expected = score + math.log(3) if name == "entropy_bound" else 9 * score
        torch.testing.assert_close(other, expected, rtol=1e-12, atol=0)

    def test_float32_agrees_with_float64(self, name):
        mean, variance = gaussians()
        single = FROM_GAUSSIANS[name](mean.float(), variance.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), FROM_GAUSSIANS[name](mean, variance), rtol=1e-3, atol=1e-5)

    def test_negative_variances_no_draws_and_lengths_that_differ_are_refused(self, name):
        mean, variance = gaussians()
        with pytest.raises(DataError, match="variance: expected no negative value"):
            FROM_GAUSSIANS[name](mean, -variance)
        with pytest.raises(DataError, match="at least one draw"):
            FROM_GAUSSIANS[name](mean[:0], variance[:0])
        with shapes_unchecked(), pytest.raises(DataError, match="variance: expected one for each mean"):
            FROM_GAUSSIANS[name](mean, variance[:, :-1])
        with pytest.raises(DataError, match="expected finite"):
            FROM_GAUSSIANS[name](torch.full_like(mean, torch.nan), variance)
