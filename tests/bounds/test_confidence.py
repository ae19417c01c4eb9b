"""Certified OOD detection: closed forms, what attacks reach, and the guaranteed AUROC beside the others."""

import math

import pytest
import torch
from torch import nn

from caveat.attacks import Ball
from caveat.bounds.confidence import guaranteed_auroc, highest_confidence
from caveat.errors import DataError, ModelError
from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally_sets

BALL = Ball(math.inf, 0.1, low=0.0, high=1.0)


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layers = [nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4)]
        return nn.Sequential(*layers).eval()


@pytest.fixture
def inputs(generator):
    return torch.rand(6, 1, 8, 8, generator=generator)


def confidence(net, inputs):
    return net(inputs).softmax(dim=1).amax(dim=1)


def attacked(net, inputs, generator):
    """The highest confidence that ascent from many starts finds in the ball."""
    best = confidence(net, inputs).detach()
    for _ in range(10):
        x = (inputs + 0.1 * (2 * torch.rand(inputs.shape, generator=generator) - 1)).clamp(0, 1)
        for _ in range(30):
            x = x.detach().requires_grad_()
            confidence(net, x).sum().backward()
            step = x.detach() + 0.02 * x.grad.sign()
            x = torch.minimum(torch.maximum(step, inputs - 0.1), inputs + 0.1).clamp(0, 1)
        best = torch.maximum(best, confidence(net, x).detach())
    return best


@pytest.mark.parametrize("method", ["alpha", "deeppoly", "interval"])
def test_no_attack_passes_the_bound(net, inputs, generator, method):
    bound = highest_confidence(net, inputs, BALL, method=method)
    assert bool((attacked(net, inputs, generator).double() <= bound).all())
    assert bool(((bound >= 0.25) & (bound <= 1)).all())


def test_back_substitution_is_no_looser_than_intervals_and_optimised_lines_than_it(net, inputs):
    """And each of them gains something."""
    best, tight, loose = (
        highest_confidence(net, inputs, BALL, method=method) for method in ("alpha", "deeppoly", "interval")
    )
    for one, other, gain in ((tight, loose, 0.01), (best, tight, 0.001)):
        assert bool((one <= other + 1e-9).all())
        assert float((other - one).max()) > gain


def test_of_two_linear_classes_it_is_exact(generator):
    net = nn.Linear(5, 2).double().eval()
    inputs = torch.rand(7, 5, generator=generator, dtype=torch.float64)
    weight, bias = (net.weight[1] - net.weight[0]).detach(), float((net.bias[1] - net.bias[0]).detach())
    reach = 0.1 * weight.abs().sum()  # the box does not bind
    exact = torch.sigmoid((inputs @ weight + bias).abs() + reach)
    torch.testing.assert_close(highest_confidence(net, inputs, Ball(math.inf, 0.1, low=None, high=None)), exact)


def test_a_point_has_its_own_confidence(net, inputs):
    torch.testing.assert_close(
        highest_confidence(net, inputs, (inputs, inputs)), confidence(net, inputs).detach().double(), atol=1e-5, rtol=0
    )


def test_guaranteed_attacked_and_plain_auroc_stand_in_this_order(net, inputs, generator):
    known = torch.rand(50, generator=generator).double()
    plain, worst = confidence(net, inputs).detach().double(), attacked(net, inputs, generator).double()
    bound = highest_confidence(net, inputs, BALL)
    found = [float(guaranteed_auroc(known, values)) for values in (bound, worst, plain)]
    assert found == sorted(found)
    counted = tally_sets(-known, -plain)  # without ties it is the plain AUROC
    assert found[2] == pytest.approx(float(auroc(counted)))


def test_ties_count_against_the_detector_and_nothing_is_refused():
    assert float(guaranteed_auroc(torch.ones(3), torch.ones(2))) == 0.0
    with pytest.raises(DataError, match="highest"):
        guaranteed_auroc(torch.ones(3), torch.ones(0))


@pytest.mark.parametrize("side", ["known", "highest"])
@pytest.mark.parametrize("wrong", [2.0, -1.0, math.nan])
def test_what_is_no_probability_is_refused(side, wrong):
    """Logits gave a guaranteed AUROC of 100 %."""
    given = {"known": torch.tensor([0.9, 0.5]), "highest": torch.tensor([0.2])} | {side: torch.tensor([0.5, wrong])}
    with pytest.raises(DataError, match=rf"{side}: expected probabilities, from 0 to 1, got {wrong:g}"):
        guaranteed_auroc(**given)


def test_one_logit_has_no_confidence():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1)).eval()
    with pytest.raises(ModelError, match=r"Adapted\(model, single=True\)"):
        highest_confidence(net, torch.rand(4, 1, 6, 6), BALL)
