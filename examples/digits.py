"""What the examples start from, in place of your own: a network that was trained, and sets as DataLoaders.

Scikit-learn's 8x8 digits: 0 to 7 are the classes, 8 and 9 are out of distribution. Nothing here is of Caveat.
"""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

IMAGES = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
LABELS = torch.tensor(load_digits().target)


def loader(of: Tensor, *, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    """A DataLoader of `(images, labels)` for the digits at these positions."""
    return DataLoader(TensorDataset(IMAGES[of], LABELS[of]), batch_size=64, shuffle=shuffle)


def network() -> nn.Sequential:
    """Two strided convolutions and two linear layers: 14,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8),
    )  # fmt: skip


@cache
def trained(*, seed: int = 0, epochs: int = 15) -> nn.Sequential:
    """The network after some passes over the training digits, in evaluation mode."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for images, labels in loader(TRAIN, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


ORDER = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
TRAIN, HELD_OUT = ORDER[LABELS[ORDER] < 8].split([700, int((LABELS < 8).sum()) - 700])
UNSEEN = ORDER[LABELS[ORDER] >= 8]  # 8 and 9
