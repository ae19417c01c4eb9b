"""No method verifies what is not so: hidden counterexamples, a bounded part of benchmarks/soundness.py."""

import importlib

import pytest
import torch
from tests.scripts import benchmark
from torch import nn

from caveat.attacks import Ball
from caveat.bounds import METHODS, bounds, certify
from caveat.bounds.region import Region
from caveat.graph import trace

PROBLEMS = (0, 1, 2, 3, 4, 7, 9)
"""Every kind of network, every norm."""


@pytest.mark.parametrize("seed", PROBLEMS)
def test_no_method_verifies_a_network_with_a_hidden_counterexample(seed, monkeypatch):
    """Without its peak each network is verified, so the peak is all that speaks against.

    The attack is left out: it proves nothing and takes most of the time.
    """
    monkeypatch.setattr(importlib.import_module("caveat.bounds.certify")._State, "attack", lambda *_: None)
    problem = benchmark("soundness").problem(seed)
    margin, graph = problem.margin(), trace(problem.model, problem.inputs)
    assert margin < -0.1
    assert float(problem.ball.distance(problem.hidden, problem.inputs)) < problem.ball.radius
    assert int(problem.model(problem.inputs).argmax(1)) == int(problem.labels)
    low, _ = bounds(problem.plain, problem.inputs, problem.ball, outputs="margins", labels=problem.labels)
    assert float(low.min()) > 0
    for method in METHODS:
        found = benchmark("soundness").found_by(method, problem, graph)
        assert not bool(found.verified), method
        assert float(found.margin) <= margin, method


def test_bounds_of_a_smaller_ball_are_found_out(monkeypatch):
    """What the test above would say of bounds that are not sound."""
    around = Region.around
    monkeypatch.setattr(Region, "around", lambda inputs, ball: around(inputs, ball.resized(ball.radius / 4)))
    problems = [benchmark("soundness").problem(seed) for seed in (0, 3)]
    found = [certify(p.model, p.inputs, p.labels, p.ball) for p in problems]
    assert any(bool(one.verified) for one in found)


@pytest.mark.parametrize("method", ["alpha", "branch"])
def test_networks_without_a_relu_have_nothing_to_optimise_or_to_split(method):
    """These raised RuntimeError and ValueError where DeepPoly had left something open."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    weights = {
        "0.weight": 9 * torch.eye(2).repeat_interleave(2, 0), "0.bias": torch.tensor([-4.5, -4.5001, -4.5, -4.5001]),
        "2.weight": torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0] * 4]), "2.bias": torch.tensor([0.01, 0.0]),
    }  # fmt: skip
    model.load_state_dict(weights)
    inputs = torch.full((1, 2), 0.5)
    found = certify(model, inputs, torch.tensor([0]), Ball(torch.inf, 0.3), method=method)
    plain = certify(model, inputs, torch.tensor([0]), Ball(torch.inf, 0.3))
    assert bool(plain.open)
    assert bool(found.open)
