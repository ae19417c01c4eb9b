import pytest
import torch
from tests.conftest import shapes_unchecked

from caveat.data.source import mapped, subset
from caveat.data.tensors import from_tensors, in_memory, unit
from caveat.errors import DataError
from caveat.types import Batches


def numbered(n: int = 10, batch: int = 4):
    """Picture k is k / 255 everywhere; its label is 2 k."""
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 3).contiguous()
    return from_tensors(images, 2 * torch.arange(n), batch=batch)


def test_batches_come_in_order_every_time():
    source = numbered()
    assert isinstance(source, Batches)
    for _ in range(2):
        batches = list(source)
        assert [len(labels) for _, labels in batches] == [4, 4, 2]
        assert torch.cat([labels for _, labels in batches]).tolist() == list(range(0, 20, 2))
        inputs = torch.cat([inputs for inputs, _ in batches])
        assert inputs.dtype == torch.float32
        assert (inputs[:, 0, 1, 2] * 255).round().tolist() == list(range(10))


def test_take_keeps_the_order_asked_for_and_allows_repeats():
    inputs, labels = numbered().take([7, 0, 7, 9, 1])
    assert labels.tolist() == [14, 0, 14, 18, 2]
    assert (inputs[:, 0, 0, 0] * 255).round().tolist() == [7, 0, 7, 9, 1]
    assert numbered().take([])[0].shape == (0, 1, 2, 3)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_take_refuses_what_is_not_there(wrong: int):
    with pytest.raises(DataError, match=rf"tensors: indices must be in 0\.\.9, got {wrong}"):
        numbered().take([3, wrong])


def test_subsets_of_subsets():
    source = subset(subset(numbered(), torch.tensor([9, 8, 3, 2])), torch.tensor([2, 0]))
    ((inputs, labels),) = source
    assert labels.tolist() == [6, 18]
    assert (inputs[:, 0, 0, 0] * 255).round().tolist() == [3, 9]
    with pytest.raises(DataError, match="no pictures are left"):
        subset(source, torch.tensor([], dtype=torch.int64))


def test_mapped_knows_its_new_shape():
    source = mapped(numbered(), lambda images: 1 - images[:, :, :1])
    assert source.shape == (1, 1, 3)
    assert torch.allclose(source.take([5])[0], torch.full((1, 1, 1, 3), 250 / 255))


def test_in_memory_loses_nothing():
    exact = in_memory(numbered())
    odd = in_memory(mapped(numbered(), lambda images: images / 3))  # not whole 255ths
    for held, original in ((exact, numbered()), (odd, mapped(numbered(), lambda images: images / 3))):
        for (left, first), (right, second) in zip(held, original, strict=True):
            assert torch.equal(left, right)
            assert torch.equal(first, second)


def test_every_byte_survives():
    every = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    assert torch.equal((unit(every) * 255).round().to(torch.uint8), every)
    assert unit(every)[[0, 51, 255]].flatten().tolist() == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.tensor([0.2, float("nan")]), "must be numbers in"),
        (torch.tensor([-0.1, 0.5]), r"these are in \[-0.1, 0.5\]"),
        (torch.tensor([0.0, 255.0]), r"these are in \[0, 255\]"),
        (torch.empty(0), "no pictures"),
    ],
)
def test_pixels_outside_the_box_are_refused(images: torch.Tensor, message: str):
    with pytest.raises(DataError, match=message):
        from_tensors(images.reshape(-1, 1, 1, 1))


def test_labels_must_be_as_many():
    with shapes_unchecked(), pytest.raises(DataError, match="2 pictures but 3 labels"):
        from_tensors(torch.zeros(2, 1, 1, 1), torch.zeros(3, dtype=torch.int64))
