"""Statistics of activations against their definition."""

import pytest
import torch
from tests.scores.test_gradients import Shared, agrees, built
from torch import nn

from caveat import fitted
from caveat.errors import DataError, ModelError, OptionError
from caveat.observations import observe
from caveat.scores import activations


@pytest.fixture
def inputs(generator):
    return torch.rand(5, 2, 6, 6, generator=generator, dtype=torch.float64)


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)).double().eval()


def test_equal_the_definition_layer_by_layer(net, inputs):
    found = activations.statistics(net, inputs, batch_size=2)
    first = net[0](inputs).flatten(1)
    joined = {"0": first, "3": net(inputs), "all": torch.cat([first, net(inputs)], dim=1)}
    agrees(found, {name: rows.detach() for name, rows in joined.items()})


def test_golden_numbers():
    net = nn.Linear(1, 3, bias=False).double().eval()
    net.weight.data = torch.tensor([[1.0], [0.0], [-4.0]]).double()
    found = activations.statistics(nn.Sequential(net).eval(), torch.ones(1, 1).double())
    # outputs 1, 0, -4: mean -1, deviations 2, 1, -3: m2 = 14/3, m3 = (8 + 1 - 27)/3 = -6, m4 = 98/3
    expected = [5.0, 17**0.5, -4.0, 1.0, -1.0, -6 / (14 / 3) ** 1.5, (98 / 3) / (14 / 3) ** 2]
    torch.testing.assert_close(found.values[0, 0], torch.tensor(expected).double(), rtol=1e-6, atol=0)


def test_a_shared_layer_counts_with_all_its_calls(inputs):
    net = built(Shared, inputs)
    found = activations.statistics(net, inputs)
    assert found.layers == ("conv", "linear", "head", "all")
    once = net.conv(inputs)
    twice = net.conv(once)
    third = net.conv(nn.functional.max_pool2d(twice.tanh(), 2))
    true = torch.cat([part.flatten(1) for part in (once, twice, third)], dim=1).abs().sum(dim=1)
    torch.testing.assert_close(found.values[:, 0, 0], true.detach(), rtol=1e-12, atol=0)


def test_in_the_shared_pass_and_saved(net, inputs, tmp_path):
    probe = activations.probe(net, inputs)
    fitted.save(probe, tmp_path / "probe.safetensors")
    probe = fitted.load(activations.ActivationProbe, tmp_path / "probe.safetensors")
    assert probe.columns[:2] == ("0/l1", "0/l2")
    seen = observe(net, [(inputs, torch.zeros(5, dtype=torch.long))], probes={"a": probe}).probed["a"]
    torch.testing.assert_close(seen, activations.statistics(net, inputs).values.flatten(1), rtol=1e-12, atol=1e-15)


def test_refusals(net, inputs):
    with pytest.raises(ModelError, match="expected layers with parameters"):
        activations.statistics(nn.Flatten().eval(), inputs)
    with pytest.raises(DataError, match="inputs: expected at least one sample"):
        activations.statistics(net, inputs[:0])
    with pytest.raises(OptionError, match="batch_size: expected at least 1, got 0"):
        activations.statistics(net, inputs, batch_size=0)
