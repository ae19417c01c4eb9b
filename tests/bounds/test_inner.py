"""Bounds inside of a network by branch and bound: never wider, never left by a value, and exact in the end."""

import math
import time

import pytest
import torch
from tests.bounds.test_bounds import NETWORKS, network, pictures
from torch import Tensor, nn

from caveat.attacks import Ball
from caveat.bounds import inner
from caveat.bounds.alpha import opened
from caveat.bounds.deeppoly import known, lower
from caveat.bounds.outputs import forms
from caveat.bounds.region import Region
from caveat.bounds.values import Known
from caveat.graph import EVALUATE, Graph, trace

UNIT = 2.0**-53


def stacked(seed: int, width: int, inputs: int, hidden: int) -> nn.Sequential:
    generator, layers, before = torch.Generator().manual_seed(seed), list[nn.Module](), inputs
    for _ in range(hidden):
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    model = nn.Sequential(*layers, nn.Linear(before, 3))
    for value in model.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator) * (1.5 / width**0.5 if value.ndim > 1 else 0.2))
    return model.double().eval()


def values(graph: Graph, inputs: Tensor) -> list[Tensor]:
    found = [inputs]
    for node in graph.nodes:
        found.append(EVALUATE[type(node.operation)](node.operation, *(found[place] for place in node.arguments)))
    return found


def closer(root: Known, rounds: int) -> Known:
    weights = {k: torch.ones_like(mask, dtype=torch.float64) for k, mask in opened(root).items()}
    with torch.no_grad():
        return inner.closer(root, weights, unit=UNIT, rounds=rounds, until=time.perf_counter() + 60)


@pytest.mark.parametrize("seed", range(3))
def test_with_all_signs_given_bounds_of_the_second_layer_are_its_extremes_on_a_grid(seed, monkeypatch):
    """Two inputs, so that a grid of 160,000 points comes near to them; DeepPoly is far wider."""
    monkeypatch.setattr(inner, "STEPS", 40)
    model, centre = stacked(seed, 6, 2, 2), torch.full((1, 2), 0.5, dtype=torch.float64)
    graph, ball = trace(model, centre), Ball(math.inf, 0.45)
    root = known(graph, Region.around(centre, ball), unit=UNIT)
    line = torch.linspace(0.05, 0.95, 400, dtype=torch.float64)
    (place,) = graph.nodes[3].arguments
    seen = values(graph, torch.cartesian_prod(line, line))[place]
    least, most = seen.amin(0), seen.amax(0)
    before, after = root.bounds[place], closer(root, 64).bounds[place]
    open_ones = ((least < 0) & (most > 0)).nonzero().squeeze(1)  # of the others no more is wanted than the sign
    assert len(open_ones)
    for k in open_ones.tolist():
        wide, width = float(before[1][0, k] - before[0][0, k]), float(most[k] - least[k])
        assert after[0][0, k] <= least[k]
        assert after[1][0, k] >= most[k]
        assert float(after[1][0, k] - after[0][0, k]) < width + 0.02 * wide
    assert float((before[1] - before[0]).sum()) > 1.05 * float((after[1] - after[0]).sum())


@pytest.mark.parametrize("name", NETWORKS)
def test_no_value_leaves_the_closer_bounds_of_any_network(name):
    """Every place, every kind of operation; never wider than before."""
    model, inputs, generator = network(name).double(), pictures(1, 1).double(), torch.Generator().manual_seed(2)
    graph, ball = trace(model, inputs), Ball(math.inf, 0.08)
    root = known(graph, Region.around(inputs, ball), unit=UNIT)
    found = closer(root, 6)
    points = ball.sample(inputs.expand(500, *inputs.shape[1:]), generator)
    points = torch.cat(
        [points, torch.where(torch.rand(points.shape, generator=generator) < 0.5, points, inputs + 0.08)]
    )
    for place, value in enumerate(values(graph, ball.project(points, inputs.expand_as(points)))):
        low, high = found.bounds[place]
        assert bool((low <= value).all() & (value <= high).all()), place
        assert bool((low >= root.bounds[place][0] - 1e-12).all() & (high <= root.bounds[place][1] + 1e-12).all())


def test_margins_of_a_deep_network_rise_with_the_rounds():
    """By far more than a better choice of lines gives."""
    model, inputs = stacked(0, 20, 8, 4), torch.full((1, 8), 0.5, dtype=torch.float64)
    graph = trace(model, inputs)
    root = known(graph, Region.around(inputs, Ball(math.inf, 0.4)), unit=UNIT)
    matrix = forms(model(inputs).argmax(1), graph)
    none, few, many = (float(lower(found, matrix).min()) for found in (root, closer(root, 8), closer(root, 64)))
    assert none < few < many


def test_a_network_without_a_relu_behind_a_relu_is_left_as_it_is():
    """Nothing can be gained there."""
    model, inputs = stacked(0, 6, 2, 1), torch.full((1, 2), 0.5, dtype=torch.float64)
    root = known(trace(model, inputs), Region.around(inputs, Ball(math.inf, 0.3)), unit=UNIT)
    assert closer(root, 4) is root
