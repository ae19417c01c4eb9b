"""Bounds where numbers are alike, too small or too large: what rounding may break, and no mathematics."""

import math

import pytest
import torch
from torch import Tensor, nn

from caveat.attacks import Ball
from caveat.bounds import METHODS, bounds, certify


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer


def apart(factor: float) -> nn.Linear:
    return linear([[factor, -factor], [-factor, factor]], [0.0, 0.0])


def seconds(method: str) -> dict[str, float]:
    return {"seconds": 0.5} if method in ("alpha", "branch") else {}


FLAT: dict[str, tuple[nn.Module, Tensor]] = {
    "pooling": (nn.AvgPool2d(28), torch.full((1, 2, 28, 28), 0.01)),
    "wide pooling": (nn.AvgPool2d(64), torch.full((1, 2, 64, 64), 0.01)),
    "convolution": (nn.Conv2d(16, 2, 8, bias=False), torch.full((1, 16, 8, 8), 0.3)),
    "wide convolution": (nn.Conv2d(16, 2, 64, bias=False), torch.full((1, 16, 64, 64), 0.3)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(16384, 2, bias=False)), torch.full((1, 1, 128, 128), 0.3)),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_flat_picture_whose_roundings_are_all_alike_does_not_leave_its_bounds(name: str) -> None:
    layer, inputs = FLAT[name]
    for weight in layer.parameters():
        weight.data.fill_(0.7)
    model = nn.Sequential(layer, nn.Flatten()).eval()
    low, high = bounds(model, inputs, Ball(math.inf, 0.0))
    with torch.no_grad():
        output = model(inputs).double()
    assert bool((low <= output).all() & (output <= high).all())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("small", [1e-21, 1e-22, 1e-23])
@pytest.mark.parametrize("large", [1e10, 1e14, 1e18])
def test_what_coefficients_in_float32_lose_below_its_least_number_is_paid(
    large: float, small: float, method: str
) -> None:
    """Two layers of 1e-23 carry back coefficients of 1e-46, which float32 does not have."""
    model = nn.Sequential(
        linear([[large], [-large]], [0.0, 0.0]), nn.ReLU(), apart(1e18), nn.ReLU(), apart(small), nn.ReLU(),
        apart(small), nn.ReLU(), linear([[1e10, -1e10], [-1e10, 1e10]], [0.4, -0.4]),
    ).eval()  # fmt: skip
    points = torch.linspace(-0.5, 0.7, 201)[:, None]
    with torch.no_grad():
        logits = model(points).double()
    least = float((logits[:, 0] - logits[:, 1]).min())
    found = certify(
        model, torch.tensor([[0.1]]), torch.tensor([0]), Ball(math.inf, 0.6, None, None), method=method,
        **seconds(method),
    )  # fmt: skip
    assert float(found.margin) <= least
    assert not (found.verified and least < 0)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_verified_where_the_network_leaves_its_type(method: str) -> None:
    """At -4.5 it answers inf and NaN."""
    model = nn.Sequential(
        linear([[1e19], [-1e19]], [-1e19, -1e19]), nn.ReLU(), linear([[1e19, 1.0], [1.0, 1e19]], [0.0, 0.0]), nn.ReLU(),
        linear([[1e-19, 1e-19], [-1e-19, 1e-19]], [0.0, 0.0]), nn.ReLU(),
        linear([[1e-19, 1e-19], [-1e-19, 1e-19]], [1.0, -1.0]),
    ).eval()  # fmt: skip
    ball = Ball(math.inf, 5.0, None, None)
    found = certify(model, torch.tensor([[0.1]]), torch.tensor([0]), ball, method=method, **seconds(method))
    assert not found.verified
    assert float(found.margin) == -math.inf


def test_what_the_network_itself_loses_below_its_least_number_is_paid() -> None:
    model = nn.Sequential(linear([[1e-20], [-1e-20]], [0.0, 0.0]), apart(1e-20), nn.ReLU(), apart(1e20), apart(1e20))
    low, high = bounds(model.eval(), torch.tensor([[0.1]]), Ball(math.inf, 0.5, None, None))
    with torch.no_grad():
        outputs = model(torch.linspace(-0.4, 0.6, 1001)[:, None]).double()
    assert bool((low <= outputs).all() & (outputs <= high).all())


class Branches(nn.Module):
    """Two layers side by side, so that a layer need not depend on the ReLUs before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(2, 8), nn.Linear(2, 8), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([torch.relu(self.first(x)), torch.relu(self.second(x))], 1))


def rectified() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("build", [Branches, rectified])
def test_branch_and_bound_of_branches_and_of_a_relu_on_the_input(build) -> None:
    """Of networks whose least margin on a grid is a hundredth: verified or open, and no error."""
    ball, line, verified = Ball(math.inf, 0.5, None, None), torch.linspace(-0.5, 0.5, 301), 0
    for seed in range(4):
        torch.manual_seed(seed)
        model = build().eval()
        for value in model.parameters():
            value.data *= 2
        inputs = torch.randn(1, 2) * 0.3
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            logits, label = model(inputs + torch.cartesian_prod(line, line)), int(model(inputs).argmax())
            last.bias[label] += 0.01 - float((logits[:, label] - logits[:, 1 - label]).min())
        found = certify(model, inputs, torch.tensor([label]), ball, method="branch", seconds=2.0)
        assert not found.falsified
        verified += int(found.verified)
    assert verified >= 3


class Averaged(nn.Module):
    """Of every channel the mean, as before the head of a residual network."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_a_mean_pays_for_what_it_averages_and_not_for_the_other_channels() -> None:
    low, high = bounds(Averaged().eval(), torch.full((1, 256, 8, 8), 0.5), Ball(math.inf, 0.0))
    assert 0 < float((high - low).max()) < 2e-5
