"""Randomised smoothing: exact for a linear classifier, and right as often as its confidence says."""

import math

import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

from caveat.bounds.smoothing import ABSTAINED, lower_share, smooth
from caveat.errors import DataError, ModelError, OptionError


def halfspace(weight, bias):
    """Class 1 where weight . x + bias > 0."""
    net = nn.Linear(len(weight), 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        net.bias.copy_(torch.tensor([0.0, bias]))
    return net.eval()


WEIGHT = torch.tensor([3.0, -4.0], dtype=torch.float64)


def test_a_linear_classifiers_radius_is_its_distance_or_less(generator):
    inputs = torch.tensor([[0.2, 0.0], [0.0, 0.3], [-0.6, 0.0]], dtype=torch.float64)
    net = halfspace(WEIGHT, 0.1)
    distance = ((inputs @ WEIGHT + 0.1) / 5).abs()
    found = smooth(net, inputs, std=0.25, generator=generator, draws=20_000)
    assert found.label.tolist() == [1, 0, 0]
    assert bool((found.radius <= distance).all())
    assert bool((found.radius > 0.85 * distance).all())  # the smoothed one is the classifier itself


def test_what_cannot_be_said_is_left_open(generator):
    found = smooth(
        halfspace(WEIGHT, 0.0), torch.zeros(1, 2, dtype=torch.float64), std=0.5, generator=generator, draws=50
    )
    assert (found.label.item(), found.radius.item()) == (ABSTAINED, 0.0)


def test_the_certificate_holds_as_often_as_it_says():
    """The share that gets the class is known; the bound may exceed it in one of ten cases."""
    truth = float(norm.cdf(0.4 / 0.5))
    net, inputs = halfspace(torch.tensor([1.0, 0.0], dtype=torch.float64), 0.4), torch.zeros(1, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    wrong = sum(
        float(smooth(net, inputs, std=0.5, generator=generator, draws=200, confidence=0.9).radius) > 0.4
        for _ in range(300)
    )
    assert 0.5 < truth < 1
    assert wrong <= binom.ppf(0.999, 300, 0.1)
    assert wrong >= 5  # it is no looser than it must be


@pytest.mark.parametrize("count", [1, 7, 100])
def test_the_bound_is_the_exact_one(count):
    for hits in {1, count // 2 + 1, count}:
        share = lower_share(hits, count, 0.95)
        assert 1 - binom.cdf(hits - 1, count, share) == pytest.approx(0.05)
    assert lower_share(0, count, 0.95) == 0.0
    assert lower_share(count, count, 0.999) == pytest.approx(0.001 ** (1 / count))


def test_the_batch_changes_no_answer_of_a_seed():
    net, inputs = (
        halfspace(WEIGHT, 0.1),
        torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    )
    one, two = (
        smooth(net, inputs, std=0.3, generator=torch.Generator().manual_seed(1), draws=60, first=16, batch=batch)
        for batch in (16, 4)
    )
    assert one.label.tolist() == two.label.tolist()


def test_options_out_of_range_are_refused(generator):
    net = halfspace(WEIGHT, 0.0)
    for options in ({"std": 0.0}, {"std": 1.0, "draws": 0}, {"std": 1.0, "confidence": 1.0}):
        with pytest.raises(OptionError):
            smooth(net, torch.zeros(1, 2, dtype=torch.float64), generator=generator, **options)
    with pytest.raises(ModelError, match="training mode"):
        smooth(nn.Linear(2, 2), torch.zeros(1, 2), std=1.0, generator=generator)
    assert math.isclose(float(norm.ppf(0.5)), 0.0)


def test_what_gives_no_answer_is_not_certified(generator):
    net, inputs = halfspace(WEIGHT, 0.0), torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ModelError, match="two classes at least, got one"):
        smooth(nn.Linear(2, 1, dtype=torch.float64).eval(), inputs, std=1.0, generator=generator)
    with pytest.raises(DataError, match="finite"):
        smooth(net, inputs / 0, std=1.0, generator=generator)
    broken = nn.Linear(2, 2, dtype=torch.float64).eval()
    broken.weight.data[1, 1] = math.nan
    with pytest.raises(ModelError, match=r"NaN at \d+ of \d+ inputs"):
        smooth(broken, inputs, std=1.0, generator=generator)
