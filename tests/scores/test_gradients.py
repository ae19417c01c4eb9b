"""Gradient statistics against one backward pass a sample, written out here in float64."""

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import shapes_unchecked
from torch import nn
from torch.nn.functional import cross_entropy, linear, max_pool2d, one_hot, scaled_dot_product_attention
from torch.nn.utils.parametrizations import weight_norm

from caveat import fitted, heads, stages
from caveat.errors import CaveatWarning, DataError, ModelError, OptionError
from caveat.observations import observe
from caveat.scores import FROM_GRADIENTS, FROM_MODEL, activations, gradients, gradnorm, nac
from caveat.scores.gradients import forms, moments, plan, slow, targets


def seven(rows):
    """The definition."""
    mean = rows.mean(dim=1, keepdim=True)
    m2, m3, m4 = (((rows - mean) ** k).mean(dim=1) for k in (2, 3, 4))
    extremes = [rows.amin(dim=1), rows.amax(dim=1), mean[:, 0]]
    return torch.stack([rows.abs().sum(dim=1), rows.norm(dim=1), *extremes, m3 / m2**1.5, m4 / m2**2], dim=1)


def by_loop(net, inputs, *, labels=None, loss=None, biases=True):
    """One sample, one backward pass at a time; parameters that share a layer are joined."""
    net = copy.deepcopy(net).requires_grad_()
    own = {name: p for name, p in net.named_parameters() if biases or not name.endswith("bias")}
    rows = []
    for i, sample in enumerate(inputs):
        logits = net(sample[None])
        y = logits.argmax(dim=1) if labels is None else labels[i : i + 1]
        value = cross_entropy(logits, y) if loss is None else loss(logits)
        rows.append(torch.autograd.grad(value, list(own.values()), allow_unused=True, materialize_grads=True))
    found = {name: torch.stack(g).flatten(1) for name, g in zip(own, zip(*rows, strict=True), strict=True)}
    layers = plan.grouped(list(own))
    joined = {name: torch.cat([found[p] for p in parts], dim=1) for name, parts in layers.items()}
    joined["all"] = torch.cat(list(joined.values()), dim=1)
    return joined


def agrees(found, joined, *, tolerance=1e-9):
    """Relative to the statistic; a mean that is zero by symmetry relative to the largest entry."""
    assert found.layers == tuple(joined)
    for place, (layer, rows) in enumerate(joined.items()):
        ours, true = found.values[:, place], seven(rows)
        size = true.abs()
        size[:, 4] = torch.maximum(size[:, 4], rows.abs().amax(dim=1) / 10)
        size[:, 5] = torch.maximum(size[:, 5], torch.ones(()))
        wrong = ((ours - true).abs() > tolerance * size) & torch.isfinite(true)
        assert not wrong.any(), (layer, ours[wrong.any(1)][0], true[wrong.any(1)][0])


class Residual(nn.Module):
    """Convolutions with norms; the second adds to what the first took; activations in place."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, inputs):
        x = self.relu(self.norm1(self.first(inputs)))
        x = self.relu(self.norm2(self.second(x)) + x)
        return self.head(x.mean(dim=(2, 3)))


class Shared(nn.Module):
    """One convolution three times, on two sizes of map; one linear layer twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(18, 18), nn.Linear(18, 3)

    def forward(self, inputs):
        x = max_pool2d(self.conv(self.conv(inputs)).tanh(), 2)
        return self.head(self.linear(self.linear(self.conv(x).flatten(1)).tanh()))


class Tied(nn.Module):
    """The head's weight is the embedding's; a token may come twice, and token 0 is padding."""

    def __init__(self, *, tie=True, many=7, sparse=False):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(many, 5, padding_idx=0), nn.LayerNorm(5)
        self.head = nn.Linear(5, many)
        if tie:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.norm(self.embedding(tokens)).tanh().mean(dim=1))


class Attention(nn.Module):
    """Tokens through an encoder layer, whose projections are used behind their layers' backs."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.encoder = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        x = torch.cat([self.token.expand(len(inputs), -1, -1), inputs.flatten(2).mT[..., :1].expand(-1, -1, 6)], dim=1)
        return self.head(self.encoder(x + inputs.mean(dim=(2, 3)).repeat(1, 3)[:, None])[:, 0])


class Projections(nn.Module):
    """Attention whose projections are linear layers, as in most transformers: each has a rule."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6, bias=bias) for bias in (True, False, True, True))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, inputs):
        x = inputs.flatten(1, 2)  # twelve tokens of six
        q, k, v = (layer(x).unflatten(2, (2, 3)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.norm(x + self.out(mixed)).mean(dim=1))


class Odd(nn.Module):
    """Windows become rows, tokens come first, and a weight is used outside of its layer too."""

    def __init__(self):
        super().__init__()
        self.window, self.late = nn.Conv2d(2, 3, 2), nn.Linear(3, 4)
        self.twice, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        n = len(inputs)
        x = inputs.unfold(3, 2, 2).permute(0, 3, 1, 2, 4).reshape(3 * n, 2, 6, 2)
        x = self.window(x).tanh().reshape(n, 3, 3, 5).mean(dim=3).transpose(0, 1)  # windows first
        x = self.late(x).mean(dim=0)
        return self.head(linear(self.twice(x).tanh(), self.twice.weight))


def sequence(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def conv(dimensions, *arguments, **options):
    return {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions](*arguments, **options)


NETS = {
    "linear": lambda: sequence(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 6, bias=False)),
    "tokens": lambda: sequence(nn.Linear(6, 4), nn.GELU(), nn.LayerNorm([6, 4])),
    "strided": lambda: sequence(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding="same")),
    "dilated": lambda: sequence(nn.Conv2d(2, 4, (3, 2), stride=(1, 2), dilation=(2, 3)), nn.ReLU(inplace=True)),
    "grouped": lambda: sequence(nn.Conv2d(2, 6, 3, groups=2), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=6, bias=False)),
    "circular": lambda: sequence(nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular")),
    "one output": lambda: sequence(nn.Conv2d(2, 5, 6)),
    "conv1d": lambda: sequence(nn.Flatten(2), nn.Conv1d(2, 4, 5, stride=3, padding=2, dilation=2), nn.BatchNorm1d(4)),
    "conv3d": lambda: sequence(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 4, (2, 3, 1), stride=(1, 2, 2), padding=1)),
    "residual": Residual,
    "shared": Shared,
    "projections": Projections,
}
SLOW = {
    "attention": (Attention, {"token", "encoder.self_attn.in_proj_weight", "encoder.self_attn.out_proj.weight"}),
    "odd": (Odd, {"late.weight", "twice.weight"}),
    "factors": (
        lambda: sequence(weight_norm(nn.Conv2d(2, 3, 3))),
        {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"},
    ),
    "transposed": (lambda: sequence(nn.ConvTranspose2d(2, 3, 2)), {"0.weight", "0.bias"}),
}


def built(make, inputs):
    """In float64, with weights and running statistics that are nowhere 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = make()
        if inputs.is_floating_point():
            net(inputs.float())
        net.double()
        for value in [*net.parameters(), *net.buffers()]:
            if value.is_floating_point():
                value.data.add_(0.3 * torch.rand_like(value))
    return net.eval()


@pytest.fixture
def inputs(generator):
    return torch.rand(5, 2, 6, 6, generator=generator, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", NETS)
def test_equals_one_backward_pass_a_sample(name, inputs):
    net = built(NETS[name], inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # every parameter has a rule
        found = gradients.statistics(net, inputs, batch_size=3)
    agrees(found, by_loop(net, inputs))
    agrees(gradients.statistics(net, inputs, biases=False), by_loop(net, inputs, biases=False))
    frozen = gradients.statistics(net.requires_grad_(False), inputs, batch_size=3)
    torch.testing.assert_close(frozen.values, found.values, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", SLOW)
def test_what_has_no_rule_is_slower_but_right(name, inputs):
    make, without = SLOW[name]
    net = built(make, inputs)
    with pytest.warns(CaveatWarning, match="gradients: no rule for .*slower") as raised:
        found = gradients.statistics(net, inputs)
    assert len(raised) == 1
    agrees(found, by_loop(net, inputs))
    with pytest.warns(CaveatWarning):
        slowly = set(gradients.probe(net, inputs).slow)
    assert without <= slowly
    assert not {"head.weight", "encoder.linear1.weight", "encoder.norm1.weight", "window.weight", "2.weight"} & slowly


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("many", [7, 40])
def test_embeddings_alone_and_tied(tie, many, generator):
    tokens = torch.randint(7, (6, 9), generator=generator)
    net = built(lambda: Tied(tie=tie, many=many), tokens)
    found = gradients.statistics(net, tokens)
    agrees(found, by_loop(net, tokens))
    assert torch.equal(gradients.statistics(net.requires_grad_(False), tokens).values, found.values)


def test_a_model_that_vmap_does_not_go_through(inputs):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.unused, self.head = nn.Parameter(torch.ones(2)), nn.Linear(1, 1), nn.Linear(72, 3)

        def forward(self, x):
            x = x * self.scale.view(2, 1, 1) if float(x.detach().sum()) > 0 else x
            return self.head(x.flatten(1))

    net = built(Branching, inputs)
    with pytest.warns(CaveatWarning, match=r"no rule for scale, unused.weight, unused.bias;"):
        found = gradients.statistics(net, inputs)
    joined = by_loop(net, inputs)
    agrees(found, joined)
    assert (found.values[:, found.layers.index("unused")] == 0).all()
    # a parameter on which nothing depends
    rows = next(slow.gradients(net, ["unused.bias"], inputs, torch.ones(5, 3).double(), budget=2**20))
    assert (rows["unused.bias"] == 0).all()


def test_golden_numbers():
    # logits (0, ln 3): p = (1/4, 3/4), g = (p - e_2) x (2, 0) = (1/4, -1/4) x (2, 0) = {1/2, 0, -1/2, 0}
    net = nn.Linear(2, 2, bias=False).double().eval()
    net.weight.data = torch.tensor([[0.0, 5.0], [torch.tensor(3.0).double().log() / 2, -1.0]]).double()
    found = gradients.statistics(net, torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    # m2 = 1/8, m4 = 1/32
    expected = torch.tensor([1.0, 0.5**0.5, -0.5, 0.5, 0.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(found.values[0, 0], expected, rtol=1e-7, atol=1e-12)
    # towards the other label the factor is 3/4 instead of 1/4, and the sign turns
    other = gradients.statistics(net, torch.tensor([[2.0, 0.0]], dtype=torch.float64), target=torch.tensor([0]))
    torch.testing.assert_close(other.values[0, 0, :2], 3 * expected[:2], rtol=1e-7, atol=1e-12)


def test_given_labels_uniform_and_expected_length(inputs):
    net = built(Residual, inputs)
    labels = torch.tensor([2, 0, 1, 1, 0])
    agrees(gradients.statistics(net, inputs, target=labels, batch_size=2), by_loop(net, inputs, labels=labels))
    uniform = gradients.statistics(net, inputs, target="uniform")
    agrees(uniform, by_loop(net, inputs, loss=lambda logits: -logits.log_softmax(dim=1).mean()))
    probs = net(inputs).softmax(dim=1).detach()
    each = [by_loop(net, inputs, labels=torch.full((5,), y)) for y in range(3)]
    lengths = sum(
        p[:, None] * torch.stack([seven(g)[:, 1] for g in e.values()], 1) for p, e in zip(probs.T, each, strict=True)
    )
    torch.testing.assert_close(gradients.expected_length(net, inputs, batch_size=2), lengths, rtol=1e-9, atol=0)


def test_towards_uniform_the_heads_l1_norm_is_gradnorm(inputs):
    net = built(Residual, inputs)
    seen = observe(net, [(inputs, torch.zeros(5, dtype=torch.long))])
    score = gradnorm.fit(seen.features, seen.labels, heads.find(net, inputs).head)(seen.features)
    found = gradients.statistics(net, inputs, target="uniform", biases=False)
    torch.testing.assert_close(found.values[:, found.layers.index("head"), 0], -score)


def test_a_certain_answer_has_the_limits_of_an_almost_certain_one(inputs):
    net = built(Residual, inputs)
    head = copy.deepcopy(net.head)

    def at(margin):  # logits level, and one class `margin` above: the direction of the gradient is the same for all
        net.head.weight.data.mul_(0)
        net.head.bias.data.copy_(torch.tensor([margin, 0.0, 1.0]))
        net.head.weight.data[:] = 1e-9 * head.weight.data
        return gradients.statistics(net, inputs).values

    near, far = at(12.0), at(60.0)  # 1 - p is 2e-5 and 3e-26: p rounds to 1
    torch.testing.assert_close(far[..., 5:], near[..., 5:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(far[..., :2] * torch.tensor(48.0).exp(), near[..., :2], rtol=1e-4, atol=0)
    single = gradients.statistics(copy.deepcopy(net).float(), inputs.float()).values
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double()[..., 5:], far[..., 5:], rtol=1e-3, atol=1e-3)
    assert (single[..., 0] > 0).all()


def test_gradients_that_are_zero_have_no_shape():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    net[0].bias.data.fill_(-100.0)
    found = gradients.statistics(net, torch.rand(2, 3, dtype=torch.float64))
    assert (found.values[:, 0] == 0).all()  # the hidden layer is dead
    assert (found.values[:, 1:, :2] > 0).all()  # the head's bias is not


def test_samples_do_not_see_each_other_and_float32_agrees(inputs):
    net = built(Residual, inputs)
    found = gradients.statistics(net, inputs).values
    alone = torch.cat([gradients.statistics(net, sample[None]).values for sample in inputs])
    torch.testing.assert_close(alone, found, rtol=1e-10, atol=1e-14)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(gradients.statistics(net, inputs[order]).values, found[order], rtol=1e-10, atol=1e-14)
    single = gradients.statistics(net.float(), inputs.float()).values
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, rtol=1e-4, atol=1e-5)


def test_the_caller_finds_his_world_as_it_was(inputs):
    net = built(Residual, inputs)
    net.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    flags = [p.requires_grad for p in net.parameters()]
    given_inputs, state = inputs.clone(), torch.get_rng_state()
    gradients.statistics(net, inputs)
    activations.statistics(net, inputs)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is None for p in net.parameters())
    assert not any(layer._forward_hooks or layer._backward_hooks or layer.training for layer in net.modules())
    assert torch.equal(inputs, given_inputs)
    assert inputs.grad is None
    assert not inputs.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    with torch.no_grad():  # nor does it matter in which one it is called
        again = gradients.statistics(net, inputs).values
    assert torch.equal(again, gradients.statistics(net, inputs).values)


def test_one_pass_gives_it_beside_other_probes(inputs, tmp_path):
    net = built(Residual, inputs)
    labels = torch.tensor([0, 1, 2, 0, 1])
    probe = gradients.probe(net, inputs)
    fitted.save(probe, tmp_path / "probe.safetensors")
    probe = fitted.load(gradients.GradientProbe, tmp_path / "probe.safetensors")
    others = {"nac": nac.probe(stages.activations(net, inputs[:2])), "odin": FROM_MODEL["odin"](net, inputs, labels)}
    together = observe(net, [(inputs, labels)], probes={"gradients": probe} | others)
    alone = observe(net, [(inputs, labels)], probes=others)
    expected = gradients.statistics(net, inputs).values
    torch.testing.assert_close(together.probed["gradients"], expected.flatten(1), rtol=1e-12, atol=0)
    for name in others:
        torch.testing.assert_close(together.probed[name], alone.probed[name], rtol=1e-12, atol=1e-15)
    assert probe.columns[0] == "first/l1"
    assert probe.columns[-1] == "all/kurtosis"
    assert len(probe.columns) == together.probed["gradients"].shape[1]
    made = {name: score(together.probed["gradients"]) for name, score in FROM_GRADIENTS.items()}
    rows = by_loop(net, inputs)["all"]
    torch.testing.assert_close(made["grad_l1"], rows.abs().sum(dim=1))
    torch.testing.assert_close(made["grad_l2"], rows.norm(dim=1))
    torch.testing.assert_close(made["grad_max"], rows.amax(dim=1))
    torch.testing.assert_close(made["grad_min"], -rows.amin(dim=1))


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_a_score_is_higher_for_a_less_certain_answer(name):
    net = nn.Linear(2, 2, bias=False).eval()
    net.weight.data = torch.eye(2)
    sure_and_unsure = torch.tensor([[3.0, -1.0], [1.2, 0.8]])
    probed = gradients.probe(net, sure_and_unsure)
    sure, unsure = FROM_GRADIENTS[name](
        observe(net, [(sure_and_unsure, torch.zeros(2, dtype=torch.long))], probes={"g": probed}).probed["g"]
    )
    assert sure < unsure


def test_grad_uncertainty_is_the_length_of_the_gradient_towards_the_uniform_answer():
    """Golden: p = (3/4, 1/4) at x = (log 3, 0), so the gradient is (1/4, -1/4) x (log 3, 0); uniform at (1, 1)."""
    net = nn.Linear(2, 2, bias=False).double().eval()
    net.weight.data = torch.eye(2, dtype=torch.float64)
    inputs = torch.tensor([[math.log(3), 0.0], [1.0, 1.0], [-2.0, 5.0]], dtype=torch.float64)
    probe = gradients.probe(net, inputs, target="uniform")
    probed = observe(net, [(inputs, torch.zeros(3, dtype=torch.long))], probes={"g": probe}).probed["g"]
    found = gradients.uncertainty(probed)
    assert found[:2].tolist() == pytest.approx([-math.log(3) / math.sqrt(8), 0.0])
    weight = net.weight.detach().requires_grad_()
    loss = -(inputs[2] @ weight.T).log_softmax(dim=0).mean()
    assert found[2].item() == pytest.approx(-torch.autograd.grad(loss, weight)[0].norm().item())
    assert found.argmax() == 1  # the least certain


@given(seed=st.integers(0, 2**31), shift=st.floats(-3, 3), cut=st.integers(1, 29), scale=st.sampled_from([1.0, 1e-9]))
def test_sums_merge_and_factorise(seed, shift, cut, scale):
    generator = torch.Generator().manual_seed(seed)
    left = scale * (torch.randn(4, 6, generator=generator, dtype=torch.float64) + shift)
    right = torch.randn(4, 5, generator=generator, dtype=torch.float64).relu() - shift
    rows = (left[:, :, None] * right[:, None]).flatten(1)
    parts = [moments.of_rows(part.contiguous()) for part in (rows[:, :cut], rows[:, cut:])]
    for sums in (moments.merged(torch.stack(parts, dim=1)), moments.of_outer(left, right), moments.of_rows(rows)):
        found = moments.finished(sums, rounding=1e-16)
        expected = seven(rows)
        size = expected.abs()
        size[:, 4], size[:, 5] = rows.abs().amax(dim=1), size[:, 5].clamp_min(1)
        assert ((found - expected).abs() <= 1e-9 * size).all()


def test_rows_of_a_table_have_the_sums_of_the_whole_table(generator):
    """Positive values, so that a 0 too many is their minimum; tokens that occur twice, and each once; two calls."""
    for tokens in ([0, 2], [3, 3, 1], [3, 1, 0, 2], [1, 1, 1, 1, 0]):
        values = 1 + torch.rand(2, len(tokens), 3, generator=generator, dtype=torch.float64)
        form = forms.Lookup(torch.tensor([tokens, tokens[::-1]]), values, 4)
        rows = forms.full(form)
        torch.testing.assert_close(forms.sums(form, budget=64), moments.of_rows(rows))
        torch.testing.assert_close(forms.full(forms.added([form, form])), 2 * rows)


def test_sums_at_the_ends_of_the_range_and_of_constants():
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    usual = moments.finished(moments.of_rows(rows), rounding=1e-7)
    for scale in (1e-20, 1e15):
        other = moments.finished(moments.of_rows(rows * scale), rounding=1e-7)
        torch.testing.assert_close(other[:, 5:], usual[:, 5:], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other[:, :4] / scale, usual[:, :4], rtol=1e-5, atol=1e-6)
    left, right = torch.rand(2, 1, 3, 4), torch.rand(2, 1, 3, 5)
    block = forms.sums(forms.Product(left * 1e-12, right), budget=64)
    torch.testing.assert_close(
        moments.finished(block, rounding=1e-7)[:, 5:],
        moments.finished(moments.of_rows((left.mT @ right).flatten(1)), rounding=1e-7)[:, 5:], rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    constant = moments.finished(moments.of_rows(torch.full((2, 7), 0.1)), rounding=1e-7)
    assert (constant[:, 5:] == 0).all()
    torch.testing.assert_close(constant[:, 0], torch.full((2,), 0.7, dtype=torch.float64))


@given(seed=st.integers(0, 2**31), c=st.integers(2, 12))
def test_directions_times_factor_are_the_softmax_minus_the_target(seed, c):
    logits = 5 * torch.randn(6, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = logits.argmin(dim=1)
    direction, factor = targets.of_label(logits, labels)
    true = logits.softmax(dim=1) - one_hot(labels, c)
    torch.testing.assert_close(direction * factor[:, None], true, rtol=1e-9, atol=1e-12)
    direction, factor = targets.of_uniform(logits)
    torch.testing.assert_close(direction * factor[:, None], logits.softmax(dim=1) - 1 / c, rtol=1e-9, atol=1e-12)
    assert direction.abs().amax(dim=1).allclose(torch.ones(6).double())


def test_the_direction_of_a_certain_answer_is_exact():
    direction, factor = targets.of_label(torch.tensor([[100.0, -60.0, -61.0]]), torch.tensor([0]))
    smaller = 1 / (1 + torch.tensor(1.0).double().exp())
    torch.testing.assert_close(direction[0], torch.stack([-torch.ones(()).double(), 1 - smaller, smaller]))
    expected = torch.tensor([-160.0], dtype=torch.float64).exp() + torch.tensor([-161.0], dtype=torch.float64).exp()
    torch.testing.assert_close(factor, expected, rtol=1e-12, atol=0)


def test_all_logits_alike_have_no_gradient_towards_uniform():
    net = nn.Linear(2, 4, bias=False).eval()
    net.weight.data.fill_(0.5)
    assert torch.isfinite(gradients.statistics(net, torch.ones(1, 2), target="uniform").values).all()


def test_refusals(inputs):
    net = built(Residual, inputs)
    with pytest.raises(DataError, match="inputs: expected at least one sample"):
        gradients.statistics(net, inputs[:0])
    with pytest.raises(OptionError, match="batch_size: expected at least 1, got 0"):
        gradients.statistics(net, inputs, batch_size=0)
    with shapes_unchecked(), pytest.raises(OptionError, match="target: expected 'predicted', 'uniform' or labels"):
        gradients.probe.__wrapped__(net, inputs, target="right")
    with shapes_unchecked(), pytest.raises(DataError, match="target: expected 5 integer labels"):
        gradients.statistics(net, inputs, target=torch.zeros(4, dtype=torch.long))
    with pytest.raises(DataError, match=r"target: expected labels in \[0, 3\), got 0 to 3"):
        gradients.statistics(net, inputs, target=torch.tensor([0, 1, 2, 3, 0]))
    with pytest.raises(ModelError, match="it is in training mode"):
        gradients.statistics(built(Residual, inputs).train(), inputs)
    with pytest.raises(ModelError, match="layer '0' normalises by the batch"):
        gradients.statistics(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)).eval(), inputs)
    with pytest.raises(ModelError, match="expected parameters to differentiate by"):
        gradients.statistics(nn.Flatten().eval(), inputs)
    with pytest.raises(ModelError, match=r"model: expected logits \(n, c\) for 2 inputs, got shape"):
        gradients.statistics(nn.Conv2d(2, 3, 1).double().eval(), inputs)
