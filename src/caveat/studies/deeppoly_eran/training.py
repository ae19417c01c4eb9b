"""ERAN's networks of MNIST: fully connected ones without normalisation, and a small convolutional one with it."""

import itertools
from dataclasses import dataclass

from torch import nn

from caveat.models import Normalized
from caveat.studies.kit.networks import state_of

__all__ = ["NETS", "Net", "network"]


@dataclass(frozen=True)
class Net:
    """Name of its file without the ending, and the radius (norm inf) that its verified counts are published for."""

    file: str
    radius: float
    layers: tuple[int, ...] = ()
    """Widths of the hidden layers of a fully connected network."""


NETS: dict[str, Net] = {
    "6x100": Net("mnist_6_100_nat", 0.026, (100,) * 5),
    "9x100": Net("mnist_9_100_nat", 0.026, (100,) * 8),
    "6x200": Net("mnist_6_200_nat", 0.015, (200,) * 5),
    "conv_small": Net("mnist_conv_small_nat", 0.12),
}


def network(name: str) -> nn.Module:
    """The network of that name in `NETS`, with its weights from the folder `eran` under CAVEAT_DATA.

    Raises
    ------
    DataError
        If they are not there.
    """
    net = NETS[name]
    state = state_of("eran", net.file)
    if net.layers:
        model = _dense((784, *net.layers, 10))
        model.load_state_dict(state)
        return model.eval()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(800, 100),
        nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    model.load_state_dict(state)
    return Normalized(model, [0.1307], [0.3081]).eval()


def _dense(sizes: tuple[int, ...]) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1])
