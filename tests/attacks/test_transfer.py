import functools
import math

import pytest
import torch
from torch import nn

from caveat.attacks import Ball, fgsm, over_sets, transfer
from caveat.errors import ModelError, OptionError


def reader(column):
    """Answers 1 where the value of one column is above a half."""
    model = nn.Linear(2, 2).eval()
    with torch.no_grad():
        model.weight.zero_()
        model.weight[1, column] = 10.0
        model.bias.copy_(torch.tensor([0.0, -5.0]))
    return model


INPUTS = torch.tensor([[0.4, 0.4], [0.45, 0.9], [0.9, 0.6], [0.1, 0.1]])
LABELS = torch.tensor([0, 0, 1, 0])


def test_counts_by_hand():
    """Radius 0.2. `first` is right on all four, `second` not on sample 1. An attack on one moves its own column only,
    so nothing carries over; of its own, samples 0 and 1 (first), 0 and 2 (second) are near enough to be fooled."""
    models = {"first": reader(0), "second": reader(1)}
    found = transfer(models, INPUTS, LABELS, Ball(math.inf, 0.2), generator=torch.Generator(), attack=fgsm)
    assert found.names == ("first", "second")
    assert found.shown.tolist() == [[4, 3], [3, 3]]
    assert found.fooled.tolist() == [[2, 0], [0, 2]]
    assert found.fooled_source.tolist() == [[2, 1], [2, 2]]
    assert found.fooled_both.tolist() == [[2, 0], [0, 2]]
    assert found.success.tolist() == [[0.5, 0.0], [0.0, pytest.approx(2 / 3)]]
    assert found.carried.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_same_network_twice_carries_everything():
    models = {"one": reader(0), "again": reader(0)}
    found = transfer(models, INPUTS, LABELS, Ball(math.inf, 0.2), generator=torch.Generator())
    assert (found.success == found.success[0, 0]).all()
    assert (found.carried == 1).all()


def test_one_matrix_a_set():
    sets = {"near": (INPUTS[:2], LABELS[:2]), "far": (INPUTS[3:], LABELS[3:])}
    attack = functools.partial(fgsm, step=0.1)
    found = over_sets({"m": reader(0)}, sets, Ball(math.inf, 0.2), generator=torch.Generator(), attack=attack)
    assert list(found) == ["near", "far"]
    assert found["near"].fooled.tolist() == [[1]]
    assert found["far"].fooled.tolist() == [[0]]


def test_errors_teach():
    with pytest.raises(OptionError, match="at least one network"):
        transfer({}, INPUTS, LABELS, Ball(2, 0.1), generator=torch.Generator())
    with pytest.raises(ModelError, match="evaluation mode"):
        transfer({"m": reader(0).train()}, INPUTS, LABELS, Ball(2, 0.1), generator=torch.Generator())
