"""A classifier whose behaviour is known exactly, and sets it is right, wrong and ignorant about."""

import pytest
import torch
from torch import nn

CLASSES = 4


@pytest.fixture
def model():
    """Four Gaussian clusters in the plane of 1x4x4 pictures; logits are those of the true posterior, times three."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES)).eval()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[torch.arange(8), torch.arange(8)] = 1.0
        net[1].bias.zero_()
        net[3].weight.zero_()
        net[3].weight[torch.arange(4), torch.arange(4)] = 12.0
        net[3].bias.zero_()
    return net


def pictures(labels, generator, *, noise=0.12):
    images = torch.full((len(labels), 16), 0.4)
    images[torch.arange(len(labels)), labels] += 0.25
    return (images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1).view(-1, 1, 4, 4)


def in_batches(images, labels, size=64):
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.fixture
def known(generator):
    labels = torch.arange(600) % CLASSES
    return in_batches(pictures(labels, generator), labels)


@pytest.fixture
def ood(generator):
    labels = torch.full((300,), -1)
    return {
        "grey": in_batches((0.4 + 0.12 * torch.randn(300, 1, 4, 4, generator=generator)).clamp(0, 1), labels),
        "noise": in_batches(torch.rand(300, 1, 4, 4, generator=generator), labels),
    }
