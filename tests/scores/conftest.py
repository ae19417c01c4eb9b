"""What the tests of feature scores share: rectified features, and scores of them in plain NumPy."""

import numpy as np
import pytest
import torch

N, C, D = 240, 4, 10


@pytest.fixture
def relu_sample(generator):
    """Features after a ReLU (many exact zeros), labels and a head, in float64."""
    labels = torch.arange(N) % C
    centres = torch.randn(C, D, generator=generator, dtype=torch.float64) + 0.5
    features = (centres[labels] + 0.8 * torch.randn(N, D, generator=generator, dtype=torch.float64)).relu()
    weight = centres + 0.3 * torch.randn(C, D, generator=generator, dtype=torch.float64)
    return features, labels, (weight, torch.randn(C, generator=generator, dtype=torch.float64))


@pytest.fixture
def queries(generator):
    """Other features; the first sample has no active unit."""
    found = (torch.randn(90, D, generator=generator, dtype=torch.float64) + 0.3).relu()
    found[0] = 0
    return found


@pytest.fixture
def as_numpy(relu_sample, queries):
    """The training set, its labels, weight, bias and the queries, as arrays."""
    features, labels, (weight, bias) = relu_sample
    return tuple(part.numpy() for part in (features, labels, weight, bias, queries))


def energy(logits: np.ndarray) -> np.ndarray:
    """Minus logsumexp of each row."""
    top = logits.max(axis=1)
    return -(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows that add up to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def tensor(*rows: object) -> torch.Tensor:
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)
