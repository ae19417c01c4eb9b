"""Proofs: the checker stands alone, accepts what was proved, and refuses what is wrong."""

import ast
import hashlib
import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scripts import benchmark
from torch import nn
from torch.nn import functional

from caveat.attacks import Ball
from caveat.bounds import branch, checker, proofs
from caveat.errors import ModelError, OptionError
from caveat.graph import trace

BENCH = benchmark("proofs")


PROVED = ((3, 0, 0.01, "interval"), (3, 1, 0.02, "deeppoly"), (45, 0, 0.1, "alpha"), (45, 1, 0.25, "branch"),
          (45, 4, 0.34, "branch"))  # fmt: skip
"""Network, input, radius and method; the last two take branch and bound."""


@pytest.fixture(scope="module")
def networks():
    """A dense one, and convolutions with batch normalisation and a residual sum."""
    made = {seed: BENCH.generated(seed) for seed in (3, 45)}
    graphs = {seed: trace(*each) for seed, each in made.items()}
    return {seed: (*made[seed], graph, checker.network(proofs.network(graph))) for seed, graph in graphs.items()}


@pytest.fixture(scope="module")
def samples(networks):
    """Of every method."""
    found = []
    for seed, k, radius, method in PROVED:
        model, inputs, graph, net = networks[seed]
        x, ball = inputs[k : k + 1], Ball(math.inf, radius)
        label = int(model(x).argmax())
        data = proofs.prove(net, graph, x, label, ball, method=method)
        found.append(BENCH.Sample(model, graph, x, label, ball, data))
    return found


def test_the_checker_imports_numpy_and_the_standard_library_alone():
    tree = ast.parse(Path(checker.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"numpy"}


def test_it_accepts_proofs_where_neither_caveat_nor_torch_can_be_imported(samples, tmp_path):
    data = {f"{k}": (proofs.network(sample.graph), sample.data) for k, sample in enumerate(samples)}
    accepted, refused, _, said = BENCH.counted(tmp_path, data)
    assert (accepted, refused) == (len(samples), 0)
    for k, sample in enumerate(samples):
        assert hashlib.sha256(sample.inputs.numpy().tobytes()).hexdigest() in said[f"{k}"]
        assert f"label {sample.label}, radius {sample.ball.radius} in [0.0, 1.0], float32" in said[f"{k}"]
    methods = {checker.read(sample.data, "caveat proof 1")[0]["method"] for sample in samples}
    assert methods == {"interval", "deeppoly", "alpha", "branch"}
    assert sum(len(checker.read(sample.data, "caveat proof 1")[1]["leaf.split"]) for sample in samples) > 15


@pytest.mark.parametrize("change", BENCH.CHANGES)
def test_it_refuses_what_is_wrong(change, samples):
    """Each kind of change, in every proof that has a place for it."""
    tried = 0
    for number, sample in enumerate(samples):
        changed = BENCH.CHANGES[change]
        data = changed(BENCH.Opened.of(sample.data), sample, np.random.default_rng(number))
        if data is None:
            continue
        other = changed is BENCH.another_weight
        net = checker.network(BENCH.answering_otherwise(sample) if other else proofs.network(sample.graph))
        checker.checked(sample.data, checker.network(proofs.network(sample.graph)))
        tried += 1
        with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever it is, nothing is accepted
            checker.checked(data, net)
    assert tried


def test_a_leaf_that_a_linear_programme_decides_is_proved_by_its_dual_values(monkeypatch):
    """Where every sign is given and the ascent fell short: without the multipliers nothing is proved."""
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    generator = torch.Generator().manual_seed(31)
    for value in model.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.8)
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(131), dtype=torch.float64)[3:4]
    graph, label = trace(model, x), int(model(x).argmax())
    net, solved = checker.network(proofs.network(graph)), branch._with_multipliers
    used = []
    monkeypatch.setattr(branch, "_with_multipliers", lambda part, duals: used.append(duals) or solved(part, duals))
    assert proofs.prove(net, graph, x, label, Ball(math.inf, 0.4), method="branch") is not None
    assert used
    monkeypatch.setattr(branch, "_with_multipliers", lambda part, duals: solved(part, 0 * duals))
    assert proofs.prove(net, graph, x, label, Ball(math.inf, 0.4), method="branch") is None


def test_every_sign_and_every_leaf_of_branch_and_bound_is_needed(samples):
    tried = 0
    for sample in samples[-2:]:
        net = checker.network(proofs.network(sample.graph))
        for row in range(len(BENCH.Opened.of(sample.data).arrays["leaf.split"])):
            proof = BENCH.Opened.of(sample.data)
            proof.arrays["leaf.split"][row, 3] *= -1
            with pytest.raises(checker.Refused, match="the leaves do not cover every sign"):
                checker.checked(proof.closed(), net)
            tried += 1
        for leaf in range(len(proof.arrays["leaf.form"])):
            data = BENCH.without_leaf(BENCH.Opened.of(sample.data), leaf)
            with pytest.raises(checker.Refused, match="the leaves do not cover every sign"):
                checker.checked(data, net)
    assert tried > 15


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"clip": [1.0, 0.0]}, "range of values"),
        ({"radius": 1e300, "clip": [None, None]}, "range of values"),
        ({"radius": -0.1}, "range of values"),
        ({"label": 7}, "the label is no class"),
        ({"label": True}, "the label is no class"),
        ({"network": "0" * 64}, "it is of another network"),
        ({"rounding": "float64"}, "the input's shape or type is not the network's"),
        ({"format": "caveat network 1"}, "it is no caveat proof 1"),
    ],
)
def test_what_a_proof_says_of_itself_is_checked(samples, about, why):
    proof = BENCH.Opened.of(samples[0].data)
    proof.about.update(about)
    with pytest.raises(checker.Refused, match=why):
        checker.checked(proof.closed(), checker.network(proofs.network(samples[0].graph)))


@pytest.mark.parametrize("seed", [0, 2])
def test_forged_proofs_of_hidden_counterexamples_are_refused(seed):
    """As a verifier writes them that looks at a smaller ball, or believes a thousand points; else all is right."""
    forged = BENCH.forged(seed)
    assert set(forged) == {"smaller ball", "seen only"}
    for sample in forged.values():
        with pytest.raises(checker.Refused, match="claimed bounds of its argument do not follow"):
            checker.checked(sample.data, checker.network(proofs.network(sample.graph)))


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.integers(0, 10_000))
def test_bounds_of_the_checker_hold_for_what_the_network_computes(networks, seed):
    """Every value of the list, and forms of the logits by any slopes; of float32, in float32."""
    model, inputs, graph, net = networks[(3, 45)[seed % 2]]
    generator = np.random.default_rng(seed)
    box = checker.ball(inputs[seed % 6].numpy(), 0.1 * generator.random(), (0.0, 1.0), checker.UNITS["float32"])
    known = checker.bounded(net, box, checker.UNITS["float32"], lambda now, k, low, high: (low, high))
    relus = [(k, node.shape) for k, node in enumerate(net.nodes, 1) if node.kind == "relu"]
    slopes = {k: generator.random((1, *shape)).astype("f4").astype(float) for k, shape in relus}
    rows = generator.normal(size=(4, 3))
    low = checker.lowest(net, known, len(net.nodes), rows, slopes)
    ends = [torch.from_numpy(end).float() for end in (box[0] + 1e-7, box[1] - 1e-7)]  # rounded, still inside
    points = torch.from_numpy(generator.uniform(*box, (200, *net.shape))).float().clamp(*ends)
    points = torch.cat([points, torch.where(torch.from_numpy(generator.random((200, *net.shape)) < 0.5), *ends)])
    with torch.no_grad():
        assert (low <= (model(points).double().numpy() @ rows.T).min(0)).all()
    values = BENCH.listed(graph, points)
    for place, (least, most) in known.ends.items():
        assert (least <= values[place].double().numpy()).all()
        assert (values[place].double().numpy() <= most).all()


def test_back_substitution_over_a_point_is_the_network_itself(networks):
    """A ball of radius 0 in exact arithmetic: bounds are the values, to rounding."""
    _, inputs, graph, net = networks[3]
    box = checker.ball(inputs[0].numpy(), 0.0, (None, None), 0.0)
    known = checker.bounded(net, box, 0.0, lambda now, k, low, high: (low, high))
    slopes = {k: np.full((1, *node.shape), 0.5) for k, node in enumerate(net.nodes, 1) if node.kind == "relu"}
    low = checker.lowest(net, known, len(net.nodes), np.eye(3), slopes)
    logits = graph.to(torch.float64)(inputs[:1].double())[0].numpy()
    assert (low <= logits).all()
    np.testing.assert_allclose(low, logits, atol=1e-11)


def test_what_float32_rounds_is_paid_for(networks):
    """Over a point, where nothing else leaves room: the same network in float32 leaves bounds of exact arithmetic."""
    _, inputs, graph, net = networks[3]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    last = next(node for node in reversed(graph.nodes) if hasattr(node.operation, "weight")).operation
    outside = 0
    for x in inputs:
        values = BENCH.listed(graph, x[None])
        shuffled = functional.linear(values[-2][:, order], last.weight[:, order], last.bias)
        for unit in (0.0, checker.UNITS["float32"]):
            box = checker.ball(x.numpy(), 0.0, (0.0, 1.0), unit)
            known = checker.bounded(net, box, unit, lambda now, k, low, high: (low, high))
            low, high = known.ends[len(net.nodes)]
            both = [z.double().numpy() for z in (values[-1], shuffled)]
            left = [not ((low <= z).all() and (z <= high).all()) for z in both]
            outside += sum(left) if not unit else 0
            assert not unit or not any(left)
    assert outside > 6


def test_what_the_checker_rounds_is_paid_for():
    """In rational numbers: bounds of sums that cancel, forwards and backwards."""
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=shape) * 10.0 ** generator.integers(-6, 7, shape) for shape in ((6, 4), (3, 6))]
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    with torch.no_grad():
        for layer, weight in zip((model[0], model[2]), weights, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
    x = torch.rand(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = checker.network(proofs.network(trace(model, x)))
    known = checker.bounded(net, (x.numpy(), x.numpy()), 0.0, lambda now, k, low, high: (low, high))
    values = [Fraction(value) for value in x[0].tolist()]
    for layer in (model[0], model[2]):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        values = [max(value, Fraction(0)) for value in values] if layer is model[2] else values
        values = [sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b)) for row, b in rows]
    low, high = known.ends[3]
    back = checker.lowest(net, known, 3, np.eye(3), {2: np.ones((1, 6))})
    for k, value in enumerate(values):
        assert Fraction(low[0, k]) <= value <= Fraction(high[0, k])
        assert Fraction(back[k]) <= value
        assert float(value) - back[k] <= 1e-9 * known.sizes[3][0, k]


def test_leaves_must_cover():
    """Trees, and the same with something less."""
    a, b = (3, 0), (5, 2)
    whole = [{a: -1}, {a: 1, b: -1}, {a: 1, b: 1}]
    assert checker.cover(whole)
    assert checker.cover([{}])
    assert not checker.cover([])
    for gone in range(3):
        assert not checker.cover([leaf for k, leaf in enumerate(whole) if k != gone])
    assert not checker.cover([{a: -1}, {b: 1}])


def test_a_network_of_other_operations_is_refused_by_name():
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    with pytest.raises(ModelError, match=r"no proof is written for tanh \(in 1\)"):
        proofs.network(trace(model, torch.rand(2, 2)))
    leaky = nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(ModelError, match=r"no proof is written for leaky ReLU"):
        proofs.network(trace(leaky, torch.rand(2, 2)))


def test_norms_and_open_samples(networks):
    model, inputs, graph, net = networks[45]
    label = int(model(inputs[:1]).argmax())
    with pytest.raises(OptionError, match="norm inf alone"):
        proofs.prove(net, graph, inputs[:1], label, Ball(2, 0.1))
    assert proofs.prove(net, graph, inputs[:1], (label + 1) % 3, Ball(math.inf, 0.1)) is None


def test_grouped_dilated_convolutions_are_the_same_network():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*model, nn.Linear(6 * 4 * 4, 3)).double().eval()
    inputs = torch.rand(2, 4, 8, 8, dtype=torch.float64)
    net = checker.network(proofs.network(trace(model, inputs)))
    known = checker.bounded(net, checker.ball(inputs[0].numpy(), 0.0, (0.0, 1.0), 0.0), 0.0, lambda *x: x[2:])
    low, high = known.ends[len(net.nodes)]
    logits = model(inputs[:1]).detach().numpy()
    assert (low <= logits).all()
    assert (logits <= high).all()
    np.testing.assert_allclose(low, high, atol=1e-11)


def test_a_file_says_the_same_on_every_run():
    """So that its hash names the network."""
    model, inputs = BENCH.generated(7)
    first, second = (proofs.network(trace(model, inputs)) for _ in range(2))
    assert first == second
    net = checker.network(first)
    assert net.sha256 == hashlib.sha256(first).hexdigest()
    about = json.loads(first[8 : 8 + int.from_bytes(first[:8], "little")])["__metadata__"]["caveat"]
    assert json.loads(about)["format"] == "caveat network 1"
