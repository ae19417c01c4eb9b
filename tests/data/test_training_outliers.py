"""Outliers that training draws: ACET's noise, occluded and turned pictures, letters."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from caveat.data import fonts, outliers
from caveat.errors import OptionError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.rand(9, 3, 20, 20, generator=seeded(1))


@pytest.mark.parametrize("name", outliers.FROM_IMAGES)
def test_as_many_pictures_in_the_same_range_by_the_same_seed(name: str) -> None:
    before = IMAGES.clone()
    one, two, other = (outliers.FROM_IMAGES[name](IMAGES, seeded(k)) for k in (5, 5, 6))
    assert one.shape == IMAGES.shape
    assert one.dtype == IMAGES.dtype
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1
    assert torch.equal(IMAGES, before)
    assert outliers.FROM_IMAGES[name](IMAGES.double(), seeded(5)).dtype == torch.float64


def test_acets_noise_step_by_step() -> None:
    found = outliers.permuted_then_blurred(IMAGES, seeded(3))
    generator = seeded(3)
    start = torch.cat([outliers.permuted(IMAGES[:4], generator), outliers.uniform_like(IMAGES[4:], generator)])
    sigma = 1 + 1.5 * float(torch.rand((), generator=generator))
    at = np.arange(-7, 8)
    kernel = np.exp(-(at**2) / (2 * sigma**2))
    soft = start.double().numpy()
    for axis in (2, 3):
        soft = correlate1d(soft, kernel / kernel.sum(), axis=axis, mode="reflect")  # scipy's reflect repeats the border
    low, high = soft.min(axis=(1, 2, 3), keepdims=True), soft.max(axis=(1, 2, 3), keepdims=True)
    torch.testing.assert_close(found.double(), torch.from_numpy((soft - low) / (high - low)), atol=1e-5, rtol=0)
    assert torch.equal(found.flatten(1).amin(dim=1), torch.zeros(9))
    assert torch.equal(found.flatten(1).amax(dim=1), torch.ones(9))


def test_turned_by_a_quarter_never_by_a_half() -> None:
    turned = outliers.quarter_turned(IMAGES, seeded())
    left, right = IMAGES.rot90(1, (2, 3)), IMAGES.rot90(3, (2, 3))
    kinds = [
        ("l" if torch.equal(t, a) else "r" if torch.equal(t, b) else "?")
        for t, a, b in zip(turned, left, right, strict=True)
    ]
    assert set(kinds) == {"l", "r"}
    with pytest.raises(OptionError, match="square"):
        outliers.quarter_turned(IMAGES[:, :, :5], seeded())


def test_one_square_of_the_sides_asked_for() -> None:
    images = torch.ones(200, 1, 20, 24)
    found = outliers.occluded(images, seeded(), sides=(3, 6), fill=0.25)
    sides = set()
    for picture in found[:, 0]:
        rows, columns = (picture == 0.25).any(dim=1), (picture == 0.25).any(dim=0)
        height, width = int(rows.sum()), int(columns.sum())
        assert height == width
        assert int((picture == 0.25).sum()) == height * width  # one block, nothing else changed
        sides.add(height)
    assert sides == {3, 4, 5, 6}
    whole = outliers.occluded(torch.ones(3, 1, 4, 4), seeded(), sides=(9, 9))
    assert torch.equal(whole, torch.zeros(3, 1, 4, 4))
    with pytest.raises(OptionError, match="sides"):
        outliers.occluded(images, seeded(), sides=(5, 4))


def test_letters_are_strokes_of_many_kinds() -> None:
    found = fonts.letters((60, 1, 28, 28), seeded())
    ink = (found > 0.4).double().mean(dim=(1, 2, 3))
    assert float(ink.min()) > 0.02  # none is empty
    assert float(ink.max()) < 0.5
    assert len({bytes(picture.numpy()) for picture in found}) == 60
    assert torch.equal(found, fonts.letters((60, 1, 28, 28), seeded()))
    assert torch.equal(fonts.letters((2, 3, 16, 16), seeded())[:, 0], fonts.letters((2, 3, 16, 16), seeded())[:, 2])
