"""Rays against the network itself: far away, on a fine grid, and in closed form."""

import math

import pytest
import torch
from torch import nn

from caveat import models
from caveat.errors import ModelError, OptionError
from caveat.graph import trace
from caveat.rays import along, row_distances
from caveat.rays.pairs import piece


def stirred(model, seed=0, *, scale=1.0):
    """In float64 with random weights, biases and statistics, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            fan = max(1, value[0].numel() if value.ndim > 1 else 1)
            value.copy_(drawn.abs() + 0.3 if "var" in name else scale * drawn * (2 / fan) ** 0.5)
    return model.eval()


def noise(n, *shape, seed=1):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaky():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


NETWORKS = {
    "lenet": (lambda: models.lenet(size=12), (1, 12, 12), 40),
    "resnet18": (lambda: models.resnet18(size=8), (3, 8, 8), 24),
    "resnet20": (lambda: models.resnet20(size=8), (3, 8, 8), 24),
    "leaky": (leaky, (1, 10, 10), 40),
}


@pytest.fixture(scope="module", params=NETWORKS)
def far(request):
    build, shape, n = NETWORKS[request.param]
    generator = torch.Generator().manual_seed(2)  # noise around another brightness each: not all of one class far away
    model, inputs = stirred(build()), torch.randn(n, *shape, generator=generator, dtype=torch.float64) * 0.3
    inputs += torch.randn(n, *[1] * len(shape), generator=generator, dtype=torch.float64)
    graph = trace(model, inputs)
    return model, graph, inputs, piece(graph, inputs, torch.full((n,), math.inf).double())


def test_the_limit_is_what_the_network_says_at_1e8(far):
    model, _, inputs, outermost = far
    limit = outermost.slopes.argmax(1)
    assert torch.equal(model(1e8 * inputs).argmax(1), limit)
    assert len(limit.unique()) > 1


def test_beyond_the_last_breakpoint_the_network_is_its_pair(far):
    model, _, inputs, outermost = far
    across = (-1,) + (1,) * (inputs.ndim - 1)
    for factor in (1 + 1e-9, 1.7, 40.0):
        alpha = outermost.last.clamp_min(1e-3) * factor
        found = model(inputs * alpha.reshape(across))
        expected = outermost.slopes * alpha[:, None] + outermost.offsets
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    alpha = outermost.last * 0.9
    inside = model(inputs * alpha.reshape(across)) - (outermost.slopes * alpha[:, None] + outermost.offsets)
    assert (inside.abs().amax(1) > 0).float().mean() > 0.9  # and before it, it is not


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_piece_holds_up_to_its_end_and_not_beyond(far, side):
    model, graph, inputs, _ = far
    across = (-1,) + (1,) * (inputs.ndim - 1)
    at = torch.full((len(inputs),), 1.3, dtype=torch.float64)
    now = piece(graph, inputs, at, side=side)
    assert ((now.end > at) if side == "right" else (now.end < at)).all()
    for share in (1e-6, 0.5, 1 - 1e-6):
        alpha = at + share * (now.end - at)
        expected = now.slopes * alpha[:, None] + now.offsets
        torch.testing.assert_close(model(inputs * alpha.reshape(across)), expected, rtol=1e-9, atol=1e-9)
    nearby = piece(graph, inputs, now.end, side=side)
    # a unit that changes may be one that no window and no later unit lets through: then nothing is seen of it
    assert ((nearby.slopes - now.slopes).abs().amax(1) > 1e-12).any()
    assert ((nearby.end > now.end) if side == "right" else (nearby.end < now.end)).all()


@pytest.mark.parametrize("pooling", [(2, 2, 0, 1, False), (3, 2, 1, 1, True), (2, 1, 0, 2, False), (3, 3, 1, 2, True)])
def test_pooling_windows_are_those_of_the_network(pooling):
    kernel, stride, padding, dilation, ceil = pooling
    model = nn.Sequential(
        nn.Conv2d(1, 3, 1),
        nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    model(torch.rand(1, 1, 7, 8))
    model, inputs = stirred(model), noise(20, 1, 7, 8) - 0.5
    rays = along(model, inputs, threshold=0.9, start=0.0, rows=False)
    alpha = rays.last_breakpoint * 1.01
    expected = rays.slopes * alpha[:, None] + rays.offsets
    torch.testing.assert_close(model(inputs * alpha.reshape(-1, 1, 1, 1)), expected, rtol=1e-9, atol=1e-9)


def on_a_grid(model, inputs, threshold, limit_class, start):
    """The three alphas as 20,001 points a ray show them: each at most one step (0.1 %) off."""
    grid = torch.logspace(math.log10(start), 7, 20_001, dtype=torch.float64)
    logits = model(grid[:, None, None] * inputs)
    sure, right = logits.softmax(-1).amax(-1) >= threshold, logits.argmax(-1) == limit_class

    def since(holds):
        last = len(grid) - 1 - (~holds).flip(0).int().argmax(0)
        after = torch.where((~holds).any(0), last + 1, 0)
        return torch.where(after == len(grid), math.inf, grid[after.clamp_max(len(grid) - 1)])

    first = torch.where(sure.any(0), grid[sure.int().argmax(0)], math.inf)
    return first, since(sure), since(right)


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
@pytest.mark.parametrize("pieces", [64, 0])
def test_alphas_equal_those_of_a_fine_grid(seed, pieces):
    """With `pieces` = 0 all is bracketed: then alphas may be off where an excursion is short."""
    unit = nn.ReLU() if seed % 2 else nn.LeakyReLU(0.1)
    model = nn.Sequential(nn.Linear(4, 7), unit, nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    inputs = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    rays = along(model, inputs, threshold=0.9, start=0.1, pieces=pieces, factor=1.02, rows=False)
    assert bool(rays.exact.all()) == (pieces > 0)
    expected = on_a_grid(model, inputs, 0.9, rays.limit_class, 0.1)
    found = (rays.first, rays.stays, rays.class_from)
    step = (1e7 / 0.1) ** (1 / 20_000)
    for a, b in zip(found, expected, strict=True):
        near = (a <= b * (1 + 2e-7)) & (b <= a * step * (1 + 2e-7)) | (torch.isinf(a) & torch.isinf(b))
        assert near.all() if pieces else near.double().mean() >= 0.95
    assert (rays.first <= rays.stays).all()
    assert rays.class_from.unique().numel() + rays.stays.unique().numel() > 10
    if seed == 3:
        assert (rays.first < 0.5 * rays.stays).any()  # confidence is not monotone


def test_a_linear_network_in_closed_form():
    """The first of two classes leads by 2 alpha - 3: from 1.5 on, with confidence t from (3 + logit t) / 2 on."""
    model = nn.Linear(1, 2).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0], [0.0]]))
        model.bias.copy_(torch.tensor([0.0, 3.0]))
    rays = along(model, torch.ones(1, 1).double(), threshold=0.99, start=0.0)
    logit = math.log(99)
    assert rays.last_breakpoint.item() == 0
    assert rays.class_from.item() == pytest.approx(1.5)
    assert rays.stays.item() == pytest.approx((3 + logit) / 2)
    assert rays.first.item() == pytest.approx(rays.stays.item())  # at 0 the other class has 0.95
    assert along(model, torch.ones(1, 1).double(), threshold=0.9, start=0.0).first.item() == 0.0
    assert rays.row_distance.item() == pytest.approx(1.0)
    assert (rays.limit_class.item(), rays.tie.item(), rays.limit_confidence.item()) == (0, False, 1.0)


def test_one_unit_in_closed_form():
    """relu(x - 2) against 1 at x = 1: flat until 2, from 3 on the first class; confidence in the second before."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double().eval()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(-2.0)
        model[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
        model[2].bias.copy_(torch.tensor([0.0, 1.0]))
    rays = along(model, torch.ones(1, 1).double(), threshold=0.7)
    logit = math.log(0.7 / 0.3)
    assert rays.last_breakpoint.item() == 2.0
    assert rays.class_from.item() == pytest.approx(3.0)
    assert rays.first.item() == 1.0  # sigmoid(1) = 0.73 is enough at the start
    assert rays.stays.item() == pytest.approx(3 + logit)
    torch.testing.assert_close(rays.slopes, torch.tensor([[1.0, 0.0]]).double())
    torch.testing.assert_close(rays.offsets, torch.tensor([[-2.0, 1.0]]).double())


@pytest.mark.parametrize("pieces", [0, 8])
def test_what_holds_from_the_input_on_is_followed_down_to_it(pieces):
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double().eval()
    with torch.no_grad():  # logits 5 + 3 relu(x - 1) and 0: class 0 is sure everywhere
        for parameter, values in zip(model.parameters(), ([[1.0]], [-1.0], [[3.0], [0.0]], [5.0, 0.0]), strict=True):
            parameter.copy_(torch.tensor(values))
    rays = along(model, torch.ones(1, 1).double(), threshold=0.9, start=0.0, pieces=pieces)
    assert (rays.first.item(), rays.stays.item(), rays.class_from.item()) == (0, 0, 0)
    assert rays.exact.item() == (pieces > 0)


def test_dead_units_tie_and_infinity_is_infinite():
    """On a ray where every unit dies the logits are constant: softmax(0, 1, 3), never 0.999, whatever alpha."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    with torch.no_grad():
        model[0].weight.copy_(-torch.rand(4, 2, generator=torch.Generator().manual_seed(0)))
        model[0].bias.fill_(0.5)
        model[2].bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    rays = along(model, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double())
    assert rays.tie.tolist() == [True, False]
    expected = float(torch.tensor([0.0, 1.0, 3.0]).softmax(0)[2])
    assert rays.limit_confidence[0].item() == pytest.approx(expected, abs=1e-7)
    assert rays.limit_confidence[1].item() == 1.0
    assert rays.limit_class[0].item() == 2
    assert rays.stays.isinf().tolist() == [True, False]
    assert rays.row_distance[0].item() == 0.0
    assert rays.row_distance[1].item() > 0.0
    assert math.isfinite(rays.class_from[0].item())


def test_identical_rows_are_found():
    model = stirred(nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.3), nn.Linear(8, 4)))
    inputs = noise(5, 3)
    assert (along(model, inputs).row_distance > 1e-3).all()
    with torch.no_grad():
        model[2].weight[3] = model[2].weight[1]
    assert (along(model, inputs).row_distance < 1e-12).all()


def test_rows_are_the_networks_gradients_far_away():
    model, inputs = stirred(leaky()), noise(3, 1, 10, 10)
    distances = row_distances(trace(model, inputs), inputs)
    for x, distance in zip(inputs, distances, strict=True):
        matrix = torch.autograd.functional.jacobian(lambda point: model(point[None])[0], 1e6 * x).flatten(1)
        apart = torch.cdist(matrix, matrix) + torch.diag(torch.full((5,), math.inf).double())
        assert float(distance) == pytest.approx(float(apart.min() / matrix.norm(dim=1).max()), rel=1e-6)


def test_float32_networks_are_followed_in_float64_and_left_alone():
    model, inputs = stirred(leaky()).float(), noise(4, 1, 10, 10).float()
    rays = along(model, inputs, rows=False)
    assert rays.slopes.dtype == torch.float64
    assert all(value.dtype != torch.float64 for value in model.state_dict().values())
    assert torch.equal(model.double()(1e8 * inputs.double()).argmax(1), rays.limit_class)


def test_a_ray_does_not_see_the_others():
    model, inputs = stirred(leaky()), noise(6, 1, 10, 10)
    graph = trace(model, inputs)
    together = along(graph, inputs, threshold=0.9, pieces=5)
    for i in range(6):
        alone = along(graph, inputs[i : i + 1], threshold=0.9, pieces=5)
        for name in ("slopes", "last_breakpoint", "first", "stays", "class_from", "row_distance"):
            torch.testing.assert_close(getattr(together, name)[i : i + 1], getattr(alone, name), rtol=1e-8, atol=1e-10)


def test_errors_teach():
    model, inputs = stirred(nn.Linear(3, 2)), noise(2, 3)
    with pytest.raises(OptionError, match=r"threshold: expected a confidence between 0\.5 and 1, got 0\.3"):
        along(model, inputs, threshold=0.3)
    with pytest.raises(OptionError, match="pieces"):
        along(model, inputs, pieces=-1)
    with pytest.raises(ModelError, match="evaluation mode"):
        along(model.train(), inputs)
