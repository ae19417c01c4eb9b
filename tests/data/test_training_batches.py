"""Shuffled batches and augmentation."""

import pytest
import torch

from caveat import data
from caveat.data import augment
from caveat.errors import OptionError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def source(n: int = 10) -> data.Source:
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1)
    return data.from_tensors(images, torch.arange(n))


def test_every_epoch_is_another_order_of_the_same():
    batches = data.shuffled(source(), batch=4, generator=seeded())
    epochs = [list(batches) for _ in range(3)]
    orders = [torch.cat([labels for _, labels in epoch]).tolist() for epoch in epochs]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    for inputs, labels in epochs[0]:
        assert torch.equal((inputs.flatten() * 255).round().long(), labels)  # pictures stay with their labels
    again = data.shuffled(source(), batch=4, generator=seeded())
    assert torch.cat([labels for _, labels in again]).tolist() == orders[0]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_last_batch(drop_last: bool, sizes: list[int]):
    batches = data.shuffled(source(), batch=4, generator=seeded(), drop_last=drop_last)
    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)
    even = data.shuffled(source(8), batch=4, generator=seeded(), drop_last=drop_last)
    assert len(even) == len(list(even)) == 2


def test_bad_batch_sizes():
    for batch, drop_last in ((0, False), (11, True)):
        with pytest.raises(OptionError, match=r"batch: expected 1\.\.10"):
            data.shuffled(source(), batch=batch, generator=seeded(), drop_last=drop_last)


def test_augmentation_is_applied_with_the_same_generator():
    batches = data.shuffled(source(), generator=seeded(), augment=lambda images, generator: 1 - images)
    ((inputs, labels),) = batches
    assert torch.allclose(inputs.flatten(), 1 - labels / 255)


def test_crop_is_a_window_of_the_padded_picture():
    images = torch.rand(300, 2, 6, 5, generator=seeded(1))
    cropped = augment.crop(images, seeded(2), pad=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, whole in zip(cropped, padded, strict=True):
        fits = [(i, j) for i in range(5) for j in range(5) if torch.equal(whole[:, i : i + 6, j : j + 5], image)]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 25  # every shift comes up


def test_flip_mirrors_half_of_them():
    images = torch.rand(400, 1, 2, 3, generator=seeded(1))
    flipped = augment.flip(images, seeded(2))
    mirrored = torch.tensor([torch.equal(new, old.flip(2)) for new, old in zip(flipped, images, strict=True)])
    kept = torch.tensor([torch.equal(new, old) for new, old in zip(flipped, images, strict=True)])
    assert torch.equal(mirrored, ~kept)
    assert 0.4 < mirrored.double().mean() < 0.6


def test_both():
    images = torch.rand(8, 3, 9, 9, generator=seeded(1))
    expected = augment.flip(augment.crop(images, g := seeded(2)), g)
    assert torch.equal(augment.crop_and_flip(images, seeded(2)), expected)
    both, one = augment.joined(["crop", "flip"]), augment.joined(["crop"])
    assert both is not None
    assert one is not None
    assert torch.equal(both(images, seeded(2)), expected)
    assert torch.equal(one(images, seeded(2)), augment.crop(images, seeded(2)))
    assert augment.joined([]) is None
