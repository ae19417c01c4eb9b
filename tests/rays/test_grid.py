import math

import pytest
import torch
from torch import nn

from caveat import models
from caveat.errors import ModelError, OptionError
from caveat.rays import along, overconfident, reached


def reader(weight=1.0, bias=-3.0, d=2):
    """Class 1 has the log-odds weight sum(x) + bias."""
    model = nn.Linear(d, 2).double().eval()
    with torch.no_grad():
        model.weight.zero_()
        model.weight[1] = weight
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model


def test_every_alpha_is_a_power_of_the_factor_and_the_first_one():
    """Sum 1: log-odds alpha - 3 passes log 999 = 6.907 at 9.907, so the first power of 1.1 is 1.1^25 = 10.83."""
    inputs = torch.tensor([[0.4, 0.6], [8.0, 3.0], [0.0, 0.0]]).double()
    found = reached(reader(), inputs)
    assert found[0].item() == pytest.approx(1.1**25)
    assert found[1].item() == 1.0
    assert found[2].item() == math.inf  # confidence 0.95 at every alpha
    assert reached(reader(), inputs, largest=5.0)[0].item() == math.inf
    exact = along(reader(), inputs[:1]).first
    assert exact.item() == pytest.approx(9.907, abs=1e-3)
    assert exact.item() <= found[0].item() <= exact.item() * 1.1


def test_the_clipped_path_counts_if_it_is_sure_anywhere():
    """Class 1 where one value is large and the other small: sure in the middle of the path, not at its white end."""
    model = nn.Linear(2, 2).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [20.0, -20.0]]))
        model.bias.copy_(torch.tensor([0.0, -5.0]))
    inputs = torch.tensor([[0.4, 0.02], [0.3, 0.3]]).double()
    white = model(torch.ones(1, 2).double()).softmax(1).amax()
    assert overconfident(model, inputs, threshold=0.9999).tolist() == [True, False]
    assert white < 0.9999


def test_the_path_is_followed_until_every_value_is_white():
    inputs = torch.tensor([[1e-6, 0.5]]).double()
    model = reader(weight=20.0, bias=-36.0)  # sure of class 1 only where both are nearly 1, of class 0 before
    assert overconfident(model, inputs, threshold=0.95).item()
    with torch.no_grad():
        model.bias[1] = -22.0  # at (0, 0.5) log-odds -12, at (0, 1) -2, white 18
        model.weight[1] = torch.tensor([20.0, 20.0])
    assert overconfident(model, inputs, threshold=1 - 1e-7).item()


def test_batches_change_nothing():
    inputs = torch.rand(23, 2, generator=torch.Generator().manual_seed(0)).double()
    for function in (reached, overconfident):
        assert torch.equal(function(reader(), inputs, batch_size=5), function(reader(), inputs))


def test_errors_teach():
    with pytest.raises(ModelError, match="evaluation mode"):
        reached(reader().train(), torch.rand(1, 2).double())
    with pytest.raises(OptionError, match="factor"):
        reached(reader(), torch.rand(1, 2).double(), factor=1.0)


def test_a_network_of_many_pieces_is_bracketed_and_agrees_with_the_grid():
    """The grid's alpha is the first power of 1.1 at or after the exact first crossing, unless an excursion is short."""
    model = models.small_cnn(size=8, generator=torch.Generator().manual_seed(0)).double().eval()
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if "bias" in name or "mean" in name:  # without them the network is linear on every ray
            value.copy_(torch.randn(value.shape, generator=generator))
    inputs = torch.rand(30, 1, 8, 8, generator=generator).double()
    rays = along(model, inputs, threshold=0.9, pieces=4, rows=False)
    ratio = reached(model, inputs, threshold=0.9) / rays.first
    assert not rays.exact.all()
    assert torch.isfinite(rays.first).all()
    assert ((ratio >= 1 - 1e-6) & (ratio <= 1.1 + 1e-6)).double().mean() > 0.95
