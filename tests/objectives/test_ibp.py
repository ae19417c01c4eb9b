"""Certified training: the bound is the exact worst of a linear network, holds inside of the ball, and can be learnt."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from caveat import data
from caveat.attacks import Ball
from caveat.bounds import bounds
from caveat.errors import DataError, ModelError, OptionError
from caveat.models import lenet, small_cnn
from caveat.objectives import CrownIbp, Ibp
from caveat.objectives._intervals import Boxed, boxed, worst_logits
from caveat.training import recipe


def nets():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        plain = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 12), nn.LeakyReLU(0.1), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)
        )
        return {"plain": plain, "small_cnn": small_cnn(size=8), "lenet": lenet(size=8)}


@pytest.mark.parametrize("name", ["plain", "small_cnn", "lenet"])
def test_the_boxes_are_the_interval_bounds(name, generator):
    net = nets()[name].double().eval()
    inputs = torch.rand(5, 1, 8, 8, generator=generator, dtype=torch.float64)
    value = boxed(net, Boxed.around(inputs, 0.05))
    low, high = bounds(net, inputs, Ball(math.inf, 0.05, 0, 1), method="interval")
    torch.testing.assert_close(value.ends[0], low, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(value.ends[1], high, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(value.clean, net(inputs))


@pytest.mark.parametrize("name", ["plain", "small_cnn"])
def test_no_point_of_the_ball_is_worse_than_the_worst_logits(name, generator):
    net = nets()[name].eval()
    inputs, labels = torch.rand(5, 1, 8, 8, generator=generator), torch.arange(5) % 3
    value = Boxed.around(inputs, 0.1)
    for layer in net[:-1]:
        value = boxed(layer, value)
    worst = worst_logits(net[-1], value, labels)
    assert bool((worst.gather(1, labels[:, None]) == 0).all())
    for _ in range(30):
        points = (inputs + 0.1 * torch.sign(torch.randn(inputs.shape, generator=generator))).clamp(0, 1)
        logits = net(points)
        assert bool((logits - logits.gather(1, labels[:, None]) <= worst + 1e-4).all())


def test_of_a_linear_network_it_is_the_loss_at_the_worst_point(generator):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    inputs = 0.3 + 0.4 * torch.rand(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(6) % 2
    direction = (net[1].weight[1 - labels] - net[1].weight[labels]).detach().sign().view_as(inputs)
    exact = functional.cross_entropy(net(inputs + 0.1 * direction), labels)
    found = Ibp(radius=0.1, weight=1.0)(net, inputs, labels, generator)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(
        Ibp(radius=0.1, weight=0.0)(net, inputs, labels, generator), functional.cross_entropy(net(inputs), labels)
    )


def test_batch_normalisation_is_that_of_the_clean_batch_and_its_gradient_is_right(generator):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    inputs, labels = torch.rand(8, 3, generator=generator, dtype=torch.float64), torch.arange(8) % 2
    other = nn.Sequential(*net)
    before = [buffer.clone() for buffer in net.buffers()]
    Ibp(radius=0.05)(net, inputs, labels, generator)
    moved = [buffer.clone() for buffer in net.buffers()]
    for buffer, old in zip(net.buffers(), before, strict=True):
        buffer.data.copy_(old)
    other(inputs)
    assert all(torch.equal(a, b) for a, b in zip(moved, net.buffers(), strict=True))
    weight = net[0].weight

    value = Ibp(radius=0.05)(net, inputs, labels, generator)
    (gradient,) = torch.autograd.grad(value, weight)
    step = 1e-6
    with torch.no_grad():
        weight[0, 0] += step
        up = Ibp(radius=0.05)(net, inputs, labels, generator)
        weight[0, 0] -= 2 * step
        down = Ibp(radius=0.05)(net, inputs, labels, generator)
        weight[0, 0] += step
    assert float(gradient[0, 0]) == pytest.approx(float((up - down) / (2 * step)), rel=1e-4)


def test_it_teaches_what_can_be_certified():
    train = data.load("digits:train")
    shares = {}
    for name, goal in (("plain", None), ("ibp", Ibp(radius=0.1))):
        generator = torch.Generator().manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        recipe.train(net, train, epochs=12, rate=0.01, batch=64, generator=generator, goal=goal)
        inputs, labels = next(iter(data.load("digits:test", batch=300)))
        low, _ = bounds(
            net.eval(), inputs, Ball(math.inf, 0.1, 0, 1), method="interval", outputs="margins", labels=labels
        )
        shares[name] = float((low > 0).all(dim=1).double().mean())
    assert shares["plain"] < 0.2
    assert shares["ibp"] > 0.5


@pytest.mark.parametrize("goal", [Ibp(), CrownIbp()])
def test_its_first_weights_keep_boxes_as_wide_as_they_are(goal, generator):
    widths = {}
    for drawn in (False, True):
        layers = [layer for _ in range(5) for layer in (nn.Linear(256, 256), nn.ReLU())]
        net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(256, 10))
        if drawn:
            assert recipe.begin(net, goal, generator) == 6
            assert not any(layer.bias.any() for layer in net if isinstance(layer, nn.Linear))
        value = Boxed.around(torch.rand(8, 256, generator=generator), 0.1)
        for layer in layers:
            value = boxed(layer, value)
        widths[drawn] = float(value.half.detach().mean())
    assert 0.02 < widths[True] < 0.2
    assert widths[False] > 50
    assert recipe.begin(net, replace(goal, initialise=False), generator) == 0
    assert recipe.begin(net, None, generator) == 0


def test_radius_and_weight_rise_over_the_first_fifth_and_in_short_runs_over_the_first_half():
    for epochs, rising in ((1, 0), (4, 2), (10, 5), (24, 5), (40, 8), (71, 15)):
        assert Ibp().phases(epochs)[-1] == (Ibp(), epochs - rising)
        assert CrownIbp().phases(epochs)[-1] == (CrownIbp(share=0.0), epochs - rising)
    phases = Ibp(radius=0.3, weight=0.6).phases(10)
    assert sum(count for _, count in phases) == 10
    assert phases[-1] == (Ibp(radius=0.3, weight=0.6), 5)
    assert [round(aim.radius, 3) for aim, _ in phases] == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert Ibp().phases(1) == [(Ibp(), 1)]


def test_what_has_no_rule_is_named(generator):
    inputs, labels = torch.rand(3, 1, 8, 8), torch.arange(3)
    cases = [(nn.Sequential(nn.Flatten(), nn.GELU(), nn.Linear(64, 3)), "GELU"),
             (nn.Linear(64, 3), "ends in a linear layer, got Linear"),
             (nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)), "Dropout")]  # fmt: skip
    for net, word in cases:
        with pytest.raises(ModelError, match=word):
            Ibp()(net, inputs, labels, generator)
    with pytest.raises(DataError, match=r"expected values in \[0, 1\]"):
        Ibp()(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 2 * inputs - 1, labels, generator)
    for options in ({"radius": 1.0}, {"weight": 1.5}):
        with pytest.raises(OptionError):
            Ibp(**options)
