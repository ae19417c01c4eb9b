"""What reports call a network."""

import copy

import pytest
import torch
from torch import nn

from caveat import models, posteriors


@pytest.mark.parametrize("wrapped", [lambda net: net, nn.DataParallel, copy.deepcopy])
def test_a_sequential_is_called_like_the_function_that_built_it(wrapped) -> None:
    net = models.small_cnn(classes=3, generator=torch.Generator())
    assert models.title(wrapped(net)) == "Sequential"
    assert models.title(wrapped(models.named(net, "small_cnn"))) == "small_cnn"
    assert models.title(models.named(nn.Linear(2, 3), "built")) == "Linear"


def test_a_posterior_is_called_like_its_networks() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Linear(2, 3)).eval()
    assert models.title(posteriors.Predictive(net, posteriors.dropout.of(net), draws=7)) == (
        "Sequential (MC dropout, 7 passes)"
    )
    members = [nn.Linear(2, 3) for _ in range(4)]
    predictive = posteriors.Predictive(members[0], posteriors.ensemble.of(members))
    assert models.title(predictive) == "Linear (mean of 4 networks)"


@pytest.mark.parametrize("value", [3, True, "often", torch.ones(2), nn.Linear(2, 2)])
def test_attributes_of_a_users_network_are_no_titles(value: object) -> None:
    """A counter `called` was its title, and a flag `averaged` ended the audit."""
    net = nn.Linear(2, 3)
    net.averaged, net.called = value, value
    assert models.title(net) == "Linear"
