"""Certificates against an exact oracle: mixed-integer programmes of tiny networks, solved by HiGHS."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, milp
from torch import nn

from caveat.attacks import Ball, pgd
from caveat.bounds import METHODS, VERDICTS, alpha, bounds, branch, certify, inner, rounding
from caveat.bounds.alpha import opened, tightened
from caveat.bounds.deeppoly import known, lower, unit_of
from caveat.bounds.outputs import forms, traced
from caveat.bounds.region import Region
from caveat.errors import DataError, ModelError, OptionError

WIDTH = 5


def tiny(seed: int) -> nn.Sequential:
    """Two hidden layers of five units, in float64."""
    model = nn.Sequential(nn.Linear(3, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.8)
    return model.double().eval()


def exact(model: nn.Sequential, low: torch.Tensor, high: torch.Tensor, form: torch.Tensor) -> float:
    """The least value of a linear form of the logits over a box: one binary a unit, big M from intervals.

    Variables: x (3), then z, y, d of each hidden layer: y >= 0, y >= z, y <= z - l (1 - d), y <= u d.
    """
    weights = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in model if hasattr(layer, "weight")
    ]
    count = 3 + 6 * WIDTH
    rows, least, most = list[np.ndarray](), list[float](), list[float]()

    def need(entries: dict[int, float], lower: float, upper: float) -> None:
        row = np.zeros(count)
        for place, value in entries.items():
            row[place] = value
        rows.append(row), least.append(lower), most.append(upper)

    before, ends = range(3), (low.numpy(), high.numpy())
    limits = [list(ends[0]), list(ends[1])]
    for layer in range(2):
        weight, bias = weights[layer]
        middle, half = weight @ (ends[0] + ends[1]) / 2 + bias, np.abs(weight) @ (ends[1] - ends[0]) / 2
        below, above = middle - half, middle + half
        start = 3 + 3 * WIDTH * layer
        for k in range(WIDTH):
            z, y, d = start + k, start + WIDTH + k, start + 2 * WIDTH + k
            need({z: -1, **dict(zip(before, weight[k], strict=True))}, -bias[k], -bias[k])
            need({y: 1, z: -1}, 0, np.inf)
            l, u = min(below[k], 0), max(above[k], 0)  # noqa: E741
            need({y: 1, z: -1, d: -l}, -np.inf, -l)
            need({y: 1, d: -u}, -np.inf, 0)
        limits[0] += [*below, *np.zeros(2 * WIDTH)]
        limits[1] += [*above, *np.maximum(above, 0), *np.ones(WIDTH)]
        before, ends = range(start + WIDTH, start + 2 * WIDTH), (np.maximum(below, 0), np.maximum(above, 0))
    weight, bias = weights[2]
    goal = np.zeros(count)
    goal[list(before)] = form.numpy() @ weight
    whole = np.zeros(count)
    for layer in range(2):
        whole[3 + 3 * WIDTH * layer + 2 * WIDTH : 3 + 3 * WIDTH * (layer + 1)] = 1
    found = milp(
        goal, constraints=LinearConstraint(np.array(rows), least, most), integrality=whole, bounds=_box(limits)
    )
    assert found.status == 0, found.message
    return found.fun + float(form.numpy() @ bias)


def _box(limits):
    from scipy.optimize import Bounds

    return Bounds(np.array(limits[0]), np.array(limits[1]))


@pytest.mark.parametrize("seed", range(6))
def test_mixed_integer_programmes_agree(seed):
    """No method verifies what the oracle refutes; branch and bound decides all, and as the oracle does."""
    model, ball = tiny(seed), Ball(math.inf, 0.25)
    inputs = torch.rand(6, 3, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)
    labels = model(inputs).argmax(1)
    graph = traced(model, inputs)
    matrix, region = forms(labels, graph), Region.around(inputs, ball)
    truth = torch.tensor([
        min(exact(model, region.low[k], region.high[k], form) for form in matrix[k]) for k in range(6)
    ])  # fmt: skip
    margins = []
    for method in METHODS:
        found = certify(model, inputs, labels, ball, method=method, graph=graph)
        assert not bool((found.verified & (truth < -1e-6)).any())
        assert not bool((found.falsified & (truth > 1e-6)).any())
        margins.append(found.margin)
        if method == "branch":
            assert not bool(found.open.any())
            assert torch.equal(found.verified, truth > 0)
        assert bool((found.margin <= truth.clamp_min(0) + 1e-6).all())
    assert bool((margins[1] >= margins[0] - 1e-9).all() & (margins[2] >= margins[1] - 1e-9).all())


@pytest.mark.parametrize(("seed", "radius"), [(4, 0.5), (6, 0.35)])
def test_branch_and_bound_decides_what_deeppoly_leaves_open(seed, radius):
    """What the test above compares is not trivial."""
    model, ball = tiny(seed), Ball(math.inf, radius)
    inputs = torch.rand(6, 3, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)
    labels = model(inputs).argmax(1)
    plain, full = (certify(model, inputs, labels, ball, method=method) for method in ("deeppoly", "branch"))
    assert int((plain.open & full.verified).sum()) >= 1
    assert bool((full.verified | ~plain.verified).all())


@pytest.mark.parametrize("norm", [math.inf, 2, 1])
def test_counterexamples_are_of_the_ball_and_break_the_model(norm):
    model = tiny(1).float()
    inputs = torch.rand(20, 3, generator=torch.Generator().manual_seed(3))
    labels, ball = model(inputs).argmax(1), Ball(norm, 0.3)
    found = certify(model, inputs, labels, ball)
    assert int(found.falsified.sum()) >= 3
    assert int(found.verified.sum()) >= 3
    hit = found.falsified
    assert bool((model(found.counterexamples[hit]).argmax(1) != labels[hit]).all())
    assert float(ball.distance(found.counterexamples, inputs).max()) <= 0.3 + 1e-6
    assert torch.equal(found.counterexamples[~hit], inputs[~hit])
    wrong = certify(model, inputs, (labels + 1) % 3, ball)
    assert bool(wrong.falsified.all())
    assert torch.equal(wrong.counterexamples, inputs)


def test_optimised_slopes_only_raise_bounds():
    model = tiny(2)
    inputs = torch.rand(5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    graph, labels = traced(model, inputs), model(inputs).argmax(1)
    region, unit = Region.around(inputs, Ball(math.inf, 0.4)), unit_of(model, inputs)
    with torch.no_grad():
        found, matrix = known(graph, region, unit=unit), forms(labels, graph)
        before = lower(found, matrix)
    better = tightened(found, matrix, unit=unit)
    assert bool((better.values >= before).all())
    assert float((better.values - before).max()) > 0.05
    points = region.low + torch.rand(400, 5, 3, dtype=torch.float64) * (region.high - region.low)
    logits = model(points)
    reached = (matrix[None] @ logits[..., None]).squeeze(-1).amin(0)
    assert bool((better.values <= reached).all())


@pytest.fixture(scope="module")
def left_open():
    """A sample that DeepPoly leaves open: the network, its graph, the sample, its label and margin."""
    model = tiny(6)
    inputs = torch.rand(8, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    graph, labels = traced(model, inputs), model(inputs).argmax(1)
    usual = certify(model, inputs, labels, Ball(math.inf, 0.5), graph=graph)
    row = usual.open.nonzero().flatten()[:1]
    return model, graph, inputs[row], labels[row], usual.margin[row]


@pytest.mark.parametrize("seconds", [0.5, 5.0, 44.0, 60.0])
@pytest.mark.parametrize("method", ["alpha", "branch"])
def test_no_step_begins_after_the_seconds(method, seconds, left_open, monkeypatch):
    """Every bound takes a second of this clock, a step two at most; 20 steps of alpha once took 40, whatever was asked.

    The times that PyTorch and the solver take are none of it.
    """
    now = [0.0]

    def slow(function):
        def call(*args, **more):
            now[0] += 1
            return function(*args, **more)

        return call

    model, graph, inputs, labels, margin = left_open
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    for module in (alpha, branch, inner):
        monkeypatch.setattr(module, "known", slow(module.known))
        monkeypatch.setattr(module, "least", slow(module.least))
    found = certify(model, inputs, labels, Ball(math.inf, 0.5), method=method, seconds=seconds, graph=graph)
    assert 0 < now[0] <= seconds + 2
    assert bool((found.margin >= margin).all())


def test_branch_and_bound_takes_fewer_parts_towards_its_end(monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 100.0)
    assert branch.affordable(32, 4, 98.0, math.inf) == 32
    assert branch.affordable(32, 4, 98.0, 1000.0) == 32  # half a second each
    assert branch.affordable(32, 4, 98.0, 105.0) == 10
    assert branch.affordable(32, 4, 98.0, 100.1) == 1


def test_the_sign_of_an_early_relu_tightens_what_comes_after_it():
    """Bounds of a part are computed anew: intervals alone, cut to the sign, left them as they were."""
    model = tiny(4)
    inputs = torch.rand(1, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    graph, region, unit = traced(model, inputs), Region.around(inputs, Ball(math.inf, 0.4)), unit_of(model, inputs)
    root = known(graph, region, unit=unit)
    early, late = (graph.nodes[k - 1].arguments[0] for k in sorted(root.relaxed))
    unit_number = int(((root.bounds[early][0] < 0) & (root.bounds[early][1] > 0))[0].nonzero()[0])
    points = region.low + torch.rand(4000, 3, dtype=torch.float64) * (region.high - region.low)
    before = model[0](points)
    for sign in (-1.0, 1.0):
        split = torch.zeros_like(root.bounds[early][0])
        split[0, unit_number] = sign
        part = {"split": {early: split}, "start": root, "unit": unit}
        low, high = known(graph, region, after=torch.tensor([early]), **part).bounds[late]
        plain = known(graph, region, refine=False, **part).bounds[late]
        inside = model[2](torch.relu(before[before[:, unit_number] * sign >= 0]))
        assert bool((low <= inside.amin(0)).all() & (high >= inside.amax(0)).all())
        assert bool((low >= plain[0]).all() & (high <= plain[1]).all())
        assert float((plain[1] - plain[0] - (high - low)).max()) > 0.01
        skipped = known(graph, region, after=torch.tensor([late]), **part).bounds[late]
        torch.testing.assert_close(skipped, plain)


def test_branch_and_bound_decides_the_same_where_a_network_is_too_large_for_its_scores(monkeypatch):
    """Then a ReLU is scored by the forms alone, which holds no coefficients of every argument."""
    model = tiny(6)
    inputs = torch.rand(8, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    labels = model(inputs).argmax(1)
    certified = partial(certify, model, inputs, labels, Ball(math.inf, 0.5), method="branch", seconds=20.0)
    graph, unit = traced(model, inputs), unit_of(model, inputs)
    root = known(graph, Region.around(inputs[:1], Ball(math.inf, 0.5)), unit=unit)
    first, second = (mask for _, mask in sorted(opened(root).items()))
    size = 8 * (int(first.sum()) * 3 + int(second.sum()) * (3 + first.numel()))
    for limit, affords in ((size, True), (size - 1, False)):
        monkeypatch.setattr(alpha, "HELD", limit)
        assert alpha.affords_gradient(root) is affords
    monkeypatch.undo()
    usual = certified()
    scored, weights = [], branch._weights
    monkeypatch.setattr(alpha, "HELD", 0)
    monkeypatch.setattr(branch, "_weights", lambda *args, **more: scored.append(weights(*args, **more)) or scored[-1])
    assert torch.equal(certified().verdict, usual.verdict)
    assert scored, "no sample was left to it: this shows nothing"
    assert not usual.open.any()


def test_what_is_verified_no_seed_breaks_and_the_world_is_left_alone():
    model = tiny(4).float()
    inputs = torch.rand(8, 3, generator=torch.Generator().manual_seed(5))
    labels = model(inputs).argmax(1)
    state = torch.random.get_rng_state()
    first, again = (certify(model, inputs, labels, Ball(2, 0.2), seed=3) for _ in range(2))
    assert torch.equal(first.verdict, again.verdict)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert VERDICTS == ("open", "verified", "falsified")
    margins, _ = bounds(model, inputs, Ball(2, 0.2), outputs="margins", labels=labels)
    torch.testing.assert_close(first.margin, margins.amin(1))


def test_errors_teach():
    model, inputs = tiny(0), torch.rand(2, 3, dtype=torch.float64)
    ball = Ball(math.inf, 0.1)
    with pytest.raises(OptionError, match=r"seconds: .*method='alpha' or 'branch', got 5.0 with 'deeppoly'"):
        certify(model, inputs, torch.tensor([0, 1]), ball, seconds=5.0)
    with pytest.raises(OptionError, match="seconds: "):
        certify(model, inputs, torch.tensor([0, 1]), ball, method="branch", seconds=0.0)
    with pytest.raises(OptionError, match="memory: expected a number of bytes above 0, got 0"):
        certify(model, inputs, torch.tensor([0, 1]), ball, memory=0)
    with pytest.raises(DataError, match="labels: "):
        certify(model, inputs, torch.tensor([0, 3]), ball)
    with pytest.raises(ModelError, match="evaluation mode"):
        certify(tiny(0).train(), inputs, torch.tensor([0, 1]), ball)
    assert not len(certify(model, inputs[:0], torch.tensor([], dtype=torch.long), ball).verdict)


class Shared(nn.Module):
    """One value is the argument of two ReLUs, beside another layer; and a ReLU is on the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 5), nn.Linear(10, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.first(torch.relu(x - 0.5) - x)
        z = torch.cat([torch.relu(z), torch.nn.functional.leaky_relu(z, -0.5)], 1)
        return self.last(torch.relu(self.second(z)))


def test_branch_and_bound_decides_where_two_relus_share_an_argument() -> None:
    """By the sign of the one value; it waited for ever for the second ReLU's."""
    generator, left = torch.Generator().manual_seed(0), 0
    for _ in range(5):
        model = Shared()
        for value in model.state_dict().values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.8)
        model, inputs = model.double().eval(), torch.rand(12, 3, generator=generator, dtype=torch.float64)
        labels, ball = model(inputs).argmax(1), Ball(math.inf, 0.25)
        graph = traced(model, inputs)
        left += int(certify(model, inputs, labels, ball, graph=graph).open.sum())
        found = certify(model, inputs, labels, ball, method="branch", seconds=10.0, graph=graph)
        assert not found.open.any()
        points = ball.sample(inputs.repeat(2000, 1), generator)
        held = (model(points).argmax(1).unflatten(0, (2000, 12)) == labels).all(0)
        assert bool(held[found.verified].all())
    assert left


class Ungraded(nn.Module):
    """Of a network that runs under `no_grad`, as deployed ones do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.inner(x)


def test_a_network_without_gradients_has_the_same_certificate() -> None:
    """Bounds need none, and the attack takes those of the list of operations."""
    model, inputs = tiny(6), torch.rand(20, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels, ball = model(inputs).argmax(1), Ball(math.inf, 0.3)
    expected, found = (certify(one, inputs, labels, ball) for one in (model, Ungraded(model).eval()))
    assert bool(expected.verified.any() & expected.falsified.any())
    assert torch.equal(found.verdict, expected.verdict)


def test_a_certificate_shows_its_counts() -> None:
    """It printed every counterexample's numbers."""
    net = nn.Linear(1, 2)
    net.load_state_dict({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.zeros(2)})
    found = certify(net.eval(), torch.tensor([[0.5], [0.1]]), torch.tensor([0, 0]), Ball(math.inf, 0.2, low=-1))
    assert repr(found) == "Certificate(open=0, verified=1, falsified=1)"


@pytest.mark.parametrize(("kind", "said"), [(torch.float16, True), (torch.bfloat16, True), (torch.float32, False)])
def test_of_half_precision_it_is_said_why_little_is_proved(kind: torch.dtype, said: bool) -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).to(kind)
    note = rounding(net)
    assert (str(kind).removeprefix("torch.") in note) == said == bool(note)


class Counting(nn.Module):
    """Answers otherwise from the `since`-th call on."""

    def __init__(self, since: int) -> None:
        super().__init__()
        self.since, self.calls = since, 0
        self.layers = tiny(0).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(x) * (-1 if self.calls >= self.since else 1)


def test_a_network_that_keeps_a_state_has_no_certificate() -> None:
    """It was verified as what it was when it was traced."""
    counted = Counting(1000).eval()
    inputs = torch.rand(6, 3)
    labels = counted(inputs).argmax(1)
    counted.calls = 0
    assert bool(certify(counted, inputs, labels, Ball(math.inf, 1e-4)).verified.all())
    for since in range(2, counted.calls + 1):
        with pytest.raises(ModelError, match="its list of operations does not give its own output"):
            certify(Counting(since).eval(), inputs, labels, Ball(math.inf, 1e-4))


class Sized(nn.Linear):
    """Another function of a batch of one size."""

    def __init__(self, size: int) -> None:
        super().__init__(3, 3)
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (3 if len(x) == self.size else 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_network_that_looks_at_the_size_of_the_batch_has_no_bounds(size: int) -> None:
    with pytest.raises(ModelError, match="its list of operations does not give its own output"):
        bounds(Sized(size).eval(), torch.rand(4, 3), Ball(math.inf, 0.1))


class Writing(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.clamp_(0.2, 0.8)
        return super().forward(x)


class Following(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight.T, beta=0.3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Writing, "writes into its input"), (Following, "a path that depends"), (Scaled, "expected beta=1 and alpha=1")],
)
def test_what_cannot_be_bounded_is_said_in_one_line(kind: type[nn.Linear], message: str, capfd) -> None:
    with pytest.raises(ModelError, match=message):
        bounds(kind(3, 3).eval(), torch.rand(4, 3), Ball(math.inf, 0.1))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kinds", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_inputs_of_another_type_are_refused_by_its_name(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    net, inputs, labels = tiny(0).to(kinds[0]), torch.rand(4, 3).to(kinds[1]), torch.zeros(4, dtype=torch.long)
    own, given = (str(kind).removeprefix("torch.") for kind in kinds)
    told = rf"inputs: the model computes in {own}, got {given}: give inputs.to\(torch.{own}\)"
    for ask in (bounds, partial(certify, labels=labels), partial(pgd, labels=labels, generator=torch.Generator())):
        with pytest.raises(DataError, match=told):
            ask(net, inputs, **{"where" if ask is bounds else "ball": Ball(math.inf, 0.1)})
