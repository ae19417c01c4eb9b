import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from caveat import data
from caveat.data import outliers
from caveat.data.generated import BLOCK

SPECS = list(data.GENERATED)


def pictures(source: data.Source) -> torch.Tensor:
    return torch.cat([inputs for inputs, _ in source])


@pytest.fixture
def like() -> data.Source:
    """More than two blocks of coloured pictures, square so that they can be turned."""
    images = torch.randint(0, 256, (2 * BLOCK + 30, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    return data.from_tensors(images.to(torch.uint8), batch=100)


def test_uniform_moments(generator: torch.Generator):
    images = outliers.uniform((50, 3, 32, 32), generator).double()
    assert images.mean().item() == pytest.approx(0.5, abs=0.003)
    assert images.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_normal_moments(generator: torch.Generator):
    images = outliers.normal((50, 3, 32, 32), generator).double()
    assert images.mean().item() == pytest.approx(0.5, abs=0.003)
    # P(|Z| > 2) = 0.0455 of the pixels are clipped, half of them to each end.
    assert (images == 0).double().mean().item() == pytest.approx(0.02275, abs=0.002)
    assert (images == 1).double().mean().item() == pytest.approx(0.02275, abs=0.002)
    inside = images[(images > 0) & (images < 1)]
    assert inside.std().item() == pytest.approx(0.25 * 0.8796, abs=0.003)  # of N(0, 1) between -2 and 2: 0.8796


def test_permuted_moves_pixels_with_their_channels_and_differently_in_each_picture(generator: torch.Generator):
    position = torch.arange(64.0).reshape(8, 8) / 64
    images = torch.stack([position, position / 2]).expand(5, 2, 8, 8)
    moved = outliers.permuted(images, generator)
    assert torch.equal(moved.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    assert torch.equal(moved[:, 1], moved[:, 0] / 2)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 5
    assert (moved[0] == images[0]).double().mean() < 0.2


def test_blur_is_scipys(generator: torch.Generator):
    images = torch.rand(2, 3, 12, 7, generator=generator, dtype=torch.float64)
    expected = gaussian_filter(images.numpy(), (0, 0, 1.5, 1.5), mode="nearest", truncate=4.0)
    assert np.allclose(outliers.blurred(images, sigma=1.5).numpy(), expected, atol=1e-12)


def test_blobs_are_black_or_bright_and_connected(generator: torch.Generator):
    images = outliers.blobs((40, 1, 32, 32), generator)
    lit = images[images > 0]
    assert lit.min() >= 0.75
    assert 0.2 < len(lit) / images.numel() < 0.5
    on = (images > 0).double()
    agree = (on[..., 1:] == on[..., :-1]).double().mean()
    share = on.mean()
    assert agree > share**2 + (1 - share) ** 2 + 0.2  # neighbours agree far more often than by chance


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_pixels_on_every_pass_and_with_every_batch_size(spec: str, like: data.Source):
    whole = pictures(data.load(spec, like=like, seed=5))
    source = data.load(spec, like=like, seed=5, batch=37)
    assert whole.shape == (2 * BLOCK + 30, 3, 9, 9)
    assert whole.dtype == torch.float32
    assert torch.equal(pictures(source), whole)
    assert torch.equal(pictures(source), whole)
    picked = [2 * BLOCK + 3, 0, BLOCK, BLOCK - 1, 5]
    assert torch.equal(source.take(picked)[0], whole[picked])
    assert source.labels.unique().tolist() == [-1]
    assert whole.min() >= 0
    assert whole.max() <= 1


@pytest.mark.parametrize("spec", SPECS)
def test_other_seeds_and_other_blocks_give_other_pixels(spec: str, like: data.Source):
    first, second = (pictures(data.load(spec, like=like, seed=seed)) for seed in (1, 2))
    assert not torch.equal(first, second)
    assert len({bytes(image.numpy()) for image in first}) == len(first)


def test_permuted_comes_from_like(like: data.Source):
    whole = pictures(data.load("permuted", like=like))
    assert torch.equal(whole.flatten(2).sort(2).values, pictures(like).flatten(2).sort(2).values)


def test_modifiers_and_the_callers_random_state(like: data.Source):
    before = torch.get_rng_state()
    source = data.load("noise:uniform+grey+4x4+first=3", like=like)
    assert source.shape == (1, 4, 4)
    assert torch.cat([inputs for inputs, _ in source]).std() > 0.01
    assert torch.equal(torch.get_rng_state(), before)
