"""Bounds are sound for every operation and every norm, exact where the network is linear, and stand their rounding."""

import math
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from itertools import cycle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import shapes_unchecked
from torch import nn
from torch.nn import functional

from caveat.attacks import IN_BALL, Ball, pgd
from caveat.bounds import bounds, certify
from caveat.bounds.confidence import highest_confidence
from caveat.bounds.interval import LOWEST
from caveat.bounds.relaxations import BENDS, RELAXATIONS, bent
from caveat.errors import DataError, ModelError, OptionError
from caveat.graph import CURVES, Curve, MaxPool, Relu, trace
from caveat.models import Adapted


class Written(nn.Module):
    """A forward pass as a function."""

    def __init__(self, forward: Callable, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


def residual(self, x):
    a, b, head = self.layers
    y = functional.relu(a(x))
    y = functional.leaky_relu(y + b(y), 0.1)
    y = torch.cat([y, 2 - y.flip(2)], dim=1)[:, ::2]
    y = functional.pad(y, (1, 0), value=0.3).permute(0, 2, 3, 1).mean(2)
    return head(y.flatten(1))


def pooled(self, x):
    conv, head = self.layers
    y = functional.max_pool2d(conv(x), 3, 2, padding=1, ceil_mode=True)
    y = functional.avg_pool2d(y, 2, 1, padding=1, count_include_pad=False)
    return head(torch.cat([y.flatten(1), y.amax((2, 3)), functional.hardtanh(y, -0.2, 0.5).sum((2, 3))], 1))


def activated(activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), activation, nn.Conv2d(3, 4, 2), activation,
        nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Written(residual, nn.Conv2d(2, 3, 2), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(15, 4)),
    "pooled": lambda: Written(pooled, nn.Conv2d(2, 3, 3), nn.Linear(54, 4)),
    "plain": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4)
    ),
    **{
        name: lambda kind=kind: activated(kind())
        for name, kind in {
            "relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.2), "steep": lambda: nn.LeakyReLU(1.5),
            "falling": lambda: nn.LeakyReLU(-0.4), "relu6": nn.ReLU6, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
            "gelu": nn.GELU, "gelu_tanh": lambda: nn.GELU(approximate="tanh"), "silu": nn.SiLU,
        }.items()
    },
}  # fmt: skip
BALLS = {"linf": (math.inf, 0.08), "l2": (2, 0.5), "l1": (1, 1.2)}


def network(name: str, seed: int = 0) -> nn.Module:
    """With random weights and statistics, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model = NETWORKS[name]()
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator) * (0.6 if value.ndim > 1 else 0.3)
            value.copy_(drawn.abs() + 0.3 if "var" in key else drawn)
    return model.eval()


def pictures(seed: int, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_input_leaves_the_bounds_and_deeppoly_is_never_looser_than_intervals(name):
    """Drawn and attacked inputs; and what is found comes near to the bounds."""
    model, inputs, generator = network(name), pictures(1), torch.Generator().manual_seed(2)
    graph = trace(model, inputs)
    for norm, radius in BALLS.values():
        where = Ball(norm, radius)
        low, high = bounds(model, inputs, where, graph=graph)
        tight, loose = bounds(model, inputs, where, method="interval", graph=graph)
        inside = [where.sample(inputs, generator) for _ in range(20)]
        inside += [
            pgd(model, inputs, torch.full((3,), k), where, generator=generator, steps=15, loss=slope)
            for k in range(4)
            for slope in (rises, falls)
        ]
        with torch.no_grad():
            outputs = torch.stack([model(points) for points in inside]).double()
        assert bool((low <= outputs).all() & (outputs <= high).all()), norm
        assert bool((tight <= outputs).all() & (outputs <= loose).all()), norm
        reached = (outputs.amax(0) - outputs.amin(0)) / (high - low)
        assert 0.15 < float(reached.median()) <= 1
        low, high = bounds(model, inputs, where, outputs="margins", graph=graph)
        tight, loose = bounds(model, inputs, where, method="interval", outputs="margins", graph=graph)
        assert bool((low >= tight - 1e-9).all() & (high <= loose + 1e-9).all()), norm
        assert float((high - low).mean()) < 0.97 * float((loose - tight).mean())


@pytest.mark.parametrize(("name", "norm"), [*zip(NETWORKS, cycle(BALLS))])
def test_no_attack_of_the_table_succeeds_where_a_certificate_says_verified(name, norm, monkeypatch):
    """At the largest radius of a halving at which DeepPoly verifies a sample; eight times as far PGD breaks one.

    Branch and bound begins with what the other methods prove; the attack in a certificate is not what is tested.
    """
    monkeypatch.setattr(import_module("caveat.bounds.certify")._State, "attack", lambda *_: None)
    model, inputs, where = network(name), pictures(1), Ball(*BALLS[norm])
    graph, labels, margins = trace(model, inputs), model(inputs).argmax(1), torch.zeros(3, 3)
    while not bool((margins > 0).all(1).any()):
        where = where.resized(where.radius / 2)
        margins, _ = bounds(model, inputs, where, outputs="margins", labels=labels, graph=graph)
    verified = certify(model, inputs, labels, where, method="branch", seconds=0.1, graph=graph).verified
    assert bool(verified.any())
    for attack in IN_BALL.values():
        quick = {"steps": 8} if "steps" in signature(attack).parameters else {}
        found = attack(model, inputs, labels, where, generator=torch.Generator().manual_seed(3), **quick)
        assert not bool((verified & (model(found).argmax(1) != labels)).any()), attack.__name__
    beyond = where.resized(8 * where.radius)
    found = pgd(model, inputs, labels, beyond, generator=torch.Generator().manual_seed(3), steps=10)
    assert bool((model(found).argmax(1) != labels).any())


def rises(logits, labels):
    return logits.gather(1, labels[:, None]).squeeze(1)


def falls(logits, labels):
    return -rises(logits, labels)


@pytest.mark.parametrize(("norm", "dual"), [(math.inf, 1), (2, 2), (1, math.inf)])
def test_a_linear_network_in_closed_form(norm, dual):
    """w.x + b varies by radius |w|_q over a ball whose box is far away."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Linear(5, 3)).double().eval()
    inputs, matrix = pictures(5).double(), torch.randn(2, 3, generator=torch.Generator().manual_seed(6)).double()
    low, high = bounds(model, inputs, Ball(norm, 0.3, low=None, high=None), outputs=matrix)
    weight = (matrix @ model[2].weight @ model[1].weight).detach()
    middle = (model(inputs) @ matrix.T).detach()
    size = 0.3 * torch.linalg.vector_norm(weight, dual, dim=1)
    torch.testing.assert_close(low, middle - size, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(high, middle + size, rtol=1e-9, atol=1e-9)


def test_a_box_and_the_ball_s_box_of_valid_values():
    model = nn.Linear(2, 1, bias=False).double().eval()
    model.load_state_dict({"weight": torch.tensor([[2.0, -1.0]], dtype=torch.float64)})
    inputs = torch.tensor([[0.05, 0.9]]).double()
    low, high = bounds(model, inputs, Ball(math.inf, 0.2))
    assert low.item() == pytest.approx(2 * 0 - 1.0)  # 0.05 - 0.2 is clipped to 0, 0.9 + 0.2 to 1
    assert high.item() == pytest.approx(2 * 0.25 - 0.7)
    low, high = bounds(model, inputs, (inputs - 0.5, inputs + 1))
    assert (low.item(), high.item()) == (pytest.approx(2 * -0.45 - 1.9), pytest.approx(2 * 1.05 - 0.4))


def test_the_triangle_of_a_relu_by_hand():
    """relu(x) + relu(-x) over [-1, 2]: upper lines 2/3 (x + 1) and 1/3 (2 - x) add up to (x + 4)/3, at most 2. Lower
    lines by area: relu(x) >= x as 2 >= 1, relu(-x) >= 0 as 1 < 2; so >= x >= -1, and by intervals >= 0.
    """
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double().eval()
    model.load_state_dict({"0.weight": torch.tensor([[1.0], [-1.0]]), "2.weight": torch.tensor([[1.0, 1.0]])})
    box = (torch.tensor([[-1.0]]).double(), torch.tensor([[2.0]]).double())
    low, high = bounds(model, box[0], box)
    assert low.item() == pytest.approx(0, abs=1e-9)
    assert high.item() == pytest.approx(2)
    assert bounds(model, box[0], box, method="interval")[1].item() == pytest.approx(3)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sampled_from(sorted(CURVES)), st.floats(-8, 8), st.floats(0, 9), st.floats(0, 1))
def test_curves_lie_between_their_lines(name, low, width, share):
    ends = (torch.tensor([[low]]).double(), torch.tensor([[low + width]]).double())
    lines = RELAXATIONS[Curve][0](Curve(name), ends)
    x = ends[0] + share * (ends[1] - ends[0])
    y = CURVES[name](x)
    assert float(lines.low_slope * x + lines.low_offset) <= float(y) <= float(lines.high_slope * x + lines.high_offset)
    apart = float(lines.high_offset - lines.low_offset)
    assert apart <= BENDS[name] * width**2 / 8 * 1.01 + 1e-12 + (
        0 if width > 1e-6 else width
    )  # the widest gap of a chord


@pytest.mark.parametrize("name", CURVES)
def test_the_constants_of_curves(name):
    x = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    y = CURVES[name](x)
    bend = (y[2:] - 2 * y[1:-1] + y[:-2]) / (x[1] - x[0]) ** 2
    assert bend.abs().max() < BENDS[name] < bend.abs().max() + 0.02
    least = float(y.min())
    if name in LOWEST:
        place, value = LOWEST[name]
        assert abs(place - float(x[y.argmin()])) < 1e-3
        assert least - 1e-8 < value <= least
    else:
        assert bool((y.diff() >= 0).all())


@pytest.mark.parametrize("name", NETWORKS)
def test_optimised_lines_are_sound_and_never_looser(name):
    """Of every logit on both sides, drawn and attacked; slopes above 1 once took a line that cut through."""
    model, inputs, where = network(name), pictures(1), Ball(math.inf, 0.12)
    generator, labels = torch.Generator().manual_seed(0), [torch.full((3,), k) for k in range(4)]
    low, high = bounds(model, inputs, where, method="alpha")
    loose = bounds(model, inputs, where)
    inside = [where.sample(inputs, generator) for _ in range(50)]
    inside += [
        pgd(model, inputs, label, where, generator=generator, steps=15, loss=slope)
        for label in labels
        for slope in (rises, falls)
    ]
    with torch.no_grad():
        outputs = torch.stack([model(points) for points in inside]).double()
    assert bool((low <= outputs).all() & (outputs <= high).all())
    assert bool((low >= loose[0]).all() & (high <= loose[1]).all())
    if name not in ("gelu", "gelu_tanh", "sigmoid", "silu", "steep", "tanh"):  # nothing to choose there
        assert float((high - low < loose[1] - loose[0] - 1e-6).double().mean()) > 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_branch_and_bound_verifies_nothing_that_an_attack_breaks(name):
    """Of every kind of network, at radii from where nearly all is verified to where nearly nothing is."""
    model, inputs, generator = network(name), pictures(1, 6), torch.Generator().manual_seed(0)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    graph, verified = trace(model, inputs), 0
    for radius in (0.02, 0.05, 0.1):
        where = Ball(math.inf, radius)
        found = certify(model, inputs, labels, where, method="branch", seconds=0.3, graph=graph)
        points = pgd(model, inputs, labels, where, generator=generator, restarts=10, steps=30)
        with torch.no_grad():
            broken = model(points).argmax(1) != labels
        assert not bool((broken & found.verified).any())
        verified += int(found.verified.sum())
    assert verified


@pytest.mark.parametrize("name", ["relu", "gelu", "residual", "pooled"])
def test_a_float32_network_stays_within_the_bounds_of_a_point(name):
    """Of radius 0 all that is left is rounding; in float64 the bounds of the same network are far closer."""
    model, inputs = network(name, 7), pictures(8, 20)
    low, high = bounds(model, inputs, Ball(math.inf, 0.0))
    with torch.no_grad():
        outputs = model(inputs).double()
        assert bool((low <= outputs).all() & (outputs <= high).all())
        exact = model.double()(inputs.double())
    assert float((outputs - exact).abs().max()) > 0
    assert float((high - low).max()) < 1e-3
    low, high = bounds(model, inputs.double(), Ball(math.inf, 0.0))
    assert bool((low <= exact).all() & (exact <= high).all())
    assert float((high - low).max()) < 1e-10


def test_memory_changes_nothing():
    model, inputs, ball = network("relu"), pictures(9), Ball(math.inf, 0.1)
    once, parts = (bounds(model, inputs, ball, memory=memory) for memory in (1 << 30, 1 << 14))
    for a, b in zip(once, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_sample_does_not_depend_on_its_batch():
    model, inputs, ball = network("pooled"), pictures(10, 4), Ball(2, 0.4)
    whole = bounds(model, inputs, ball)
    for k in range(4):
        for a, b in zip(bounds(model, inputs[k : k + 1], ball), whole, strict=True):
            torch.testing.assert_close(a[0], b[k], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_labels_of_any_whole_type_mean_the_same(kind):
    """Labels of bytes and of yes and no would be a mask where they are meant as places."""
    model, inputs, ball, labels = network("relu"), pictures(4, 3), Ball(math.inf, 0.05), torch.tensor([1, 0, 1])
    expected = bounds(model, inputs, ball, outputs="margins", labels=labels)
    verdicts = certify(model, inputs, labels, ball)
    with shapes_unchecked():
        for a, b in zip(bounds(model, inputs, ball, outputs="margins", labels=labels.to(kind)), expected, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(certify(model, inputs, labels.to(kind), ball).verdict, verdicts.verdict)


def test_one_logit_is_bounded_as_two_classes():
    model, inputs = nn.Sequential(nn.Flatten(), nn.Linear(72, 1)).eval(), pictures(5, 3)
    two, ball = Adapted(model, single=True), Ball(math.inf, 0.01)
    low, high = bounds(two, inputs, ball, outputs="margins", labels=torch.tensor([1, 1, 1]))
    one_low, one_high = bounds(model, inputs, ball)
    torch.testing.assert_close(low, one_low, rtol=1e-5, atol=1e-6)  # they pay for another rounding
    torch.testing.assert_close(high, one_high, rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match="two classes at least, got one"):
        bounds(model, inputs, ball, outputs="margins")


def test_a_list_of_operations_of_other_weights_is_refused():
    model, inputs, ball = network("relu"), pictures(6, 3), Ball(math.inf, 0.05)
    graph = trace(model, inputs)
    bounds(model, inputs, ball, graph=graph)
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    for refuse in (
        lambda: bounds(model, inputs, ball, graph=graph),
        lambda: certify(model, inputs, torch.tensor([1, 0, 1]), ball, graph=graph),
        lambda: highest_confidence(model, inputs, ball, graph=graph),
    ):
        with pytest.raises(ModelError, match="weights that were changed since: trace it again"):
            refuse()


def test_every_kind_that_is_not_linear_has_a_row():
    assert set(RELAXATIONS) == {Curve, MaxPool, Relu}
    assert all("2018" in source or "2019" in source for _, source in RELAXATIONS.values())
    assert not bool(bent(Relu(0.0), (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))).any())


def test_errors_teach():
    model, inputs, ball = network("relu"), pictures(11), Ball(math.inf, 0.1)
    with pytest.raises(DataError, match=r"expected a matrix \(m, 4\), got shape \(2, 3\)"):
        bounds(model, inputs, ball, outputs=torch.ones(2, 3))
    with pytest.raises(DataError, match=r"labels: expected classes in \[0, 4\)"):
        bounds(model, inputs, ball, outputs="margins", labels=torch.tensor([0, 1, 4]))
    with pytest.raises(OptionError, match=r"labels: .*margins"):
        bounds(model, inputs, ball, labels=torch.tensor([0, 1, 3]))
    with pytest.raises(DataError, match="box: expected low <= high"):
        bounds(model, inputs, (inputs + 1, inputs))
    with pytest.raises(DataError, match="expected at least one sample"):
        bounds(model, inputs[:0], ball)
    with pytest.raises(OptionError, match="memory: "):
        bounds(model, inputs, ball, memory=0)
    with pytest.raises(ModelError, match=r"logits \(n, c\)"):
        bounds(nn.Conv2d(2, 3, 3).eval(), inputs, ball)
    with pytest.raises(ModelError, match=r"softplus.*\(in 1\)"):
        bounds(nn.Sequential(nn.Flatten(), nn.Softplus()).eval(), inputs, ball)
    assert trace(network("gelu"), inputs).nodes  # rays refuse it, bounds do not
