"""Scores over layers and with a second look, against the definition written out in NumPy or by single samples."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn

from caveat import stages
from caveat.calls import recorded
from caveat.errors import DataError, ModelError, OptionError
from caveat.scores import gram, mahalanobis, mahalanobis_layers, mahalanobis_odin, moments, nac, odin, pooled, rankfeat
from caveat.types import Look

LABELS = torch.arange(60) % 3


@pytest.fixture
def net(generator):
    """Two convolutions, a mean over pixels and a head, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(5, 3)).double().eval()


@pytest.fixture
def inputs(generator):
    return torch.rand(60, 1, 8, 8, generator=generator, dtype=torch.float64)


def look(net, inputs, *, graph=False):
    """What the one pass would hand to a probe: outputs of both rectified layers."""
    leaf = inputs.clone().requires_grad_(graph)
    first = net[:2](leaf)
    second = net[2:4](first)
    return Look(net, leaf, net[4:](second), {"1": first, "3": second})


def test_rankfeat_is_the_energy_without_the_largest_singular_value(net, inputs):
    maps = look(net, inputs).activations["3"].detach()
    expected = []
    for sample in maps.flatten(2).numpy():
        left, values, right = np.linalg.svd(sample, full_matrices=False)
        rest = sample - values[0] * np.outer(left[:, 0], right[0])
        logits = net[-1].weight.detach().numpy() @ rest.mean(axis=1) + net[-1].bias.detach().numpy()
        expected.append(-np.log(np.exp(logits).sum()))
    seen = look(net, inputs)
    probe = rankfeat.probe(seen.activations, maps.mean(dim=(2, 3)))
    assert probe.layers == ("3",)
    with torch.no_grad():
        head = (net[-1].weight, net[-1].bias)
        actual = rankfeat.fit(head)(probe(seen), seen.logits)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_rankfeat_trusts_what_has_energy_left():
    # pytorch-ood had the sign inverted (its PR 143). Maps of rank two: what is left after the first keeps logit 0 large
    head = (torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    score = rankfeat.fit(head)
    strong, weak = torch.tensor([[6.0, 0.0]]).double(), torch.tensor([[0.5, 0.0]]).double()
    assert score(strong, strong) < score(weak, weak)
    maps = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)  # singular values 3 and 1
    torch.testing.assert_close(rankfeat.without_strongest(maps), torch.tensor([[0.0, 0.5]], dtype=torch.float64))


def test_row_sums_of_gram_matrices(generator):
    maps = torch.randn(20, 4, 3, 3, generator=generator, dtype=torch.float64)
    assert (gram.row_sums(maps, (1,)) < 0).any()
    actual = gram.row_sums(maps, (1, 2, 3))
    expected = []
    for power in (1, 2, 3):
        raised = maps.flatten(2).numpy() ** power
        sums = (raised @ raised.transpose(0, 2, 1)).sum(axis=2)
        expected.append(np.sign(sums) * np.abs(sums) ** (1 / power))
    np.testing.assert_allclose(actual, np.concatenate(expected, axis=1), rtol=1e-9, atol=1e-12)


def test_gram_deviation_golden():
    # two layers of one number; class 0 has seen 1 ... 3 and 10 ... 20, with usual deviations 0.5 and 2
    score = gram.GramDeviation(
        low=torch.tensor([[1.0, 10.0]]), high=torch.tensor([[3.0, 20.0]]), expected=torch.tensor([0.5, 2.0]),
        sizes=(1, 1),
    )  # fmt: skip
    probed = torch.tensor([[2.0, 15.0], [6.0, 5.0]])  # inside; (6 - 3) / 3 above and (10 - 5) / 10 below
    torch.testing.assert_close(
        score(probed, torch.zeros(2, 1)), torch.tensor([0.0, 1 / 0.5 + 0.5 / 2]), rtol=1e-5, atol=0
    )


def test_gram_takes_the_range_of_each_class(net, inputs):
    seen = look(net, inputs)
    probe = gram.probe(seen.activations)
    probed = probe(seen).detach()
    score = gram.fit(probed, seen.logits.detach(), LABELS, probe, held_out=0.0)
    for label in range(3):
        torch.testing.assert_close(score.high[label], probed[label == LABELS].amax(dim=0))
        torch.testing.assert_close(score.low[label], probed[label == LABELS].amin(dim=0))
    own = nn.functional.one_hot(LABELS, 3).double()
    assert (score(probed, own) == 0).all()  # nothing known is outside its own class's range
    # every tenth of each class is held out: what is usual is judged on those
    # a class without samples has the range of all
    fourth = gram.fit(probed, torch.zeros(60, 4).double(), LABELS, probe, held_out=0.0)
    torch.testing.assert_close(fourth.low[3], probed.amin(dim=0))
    torch.testing.assert_close(fourth.high[3], probed.amax(dim=0))
    held = gram.fit(probed, seen.logits.detach(), LABELS, probe, held_out=0.1)
    assert (held.expected != 1).any()
    assert (held.high <= score.high).all()


def test_nac_is_the_coverage_counted_by_hand(net, inputs):
    seen = look(net, inputs, graph=True)
    probe = nac.probe(seen.activations)
    probed = probe(seen)
    # one sample alone, by its own backward pass
    alone = look(net, inputs[7:8], graph=True)
    loss = -alone.logits.log_softmax(dim=1).mean()
    (gradient,) = torch.autograd.grad(loss, alone.activations["3"])
    product = (alone.activations["3"] * gradient).mean(dim=(2, 3))
    torch.testing.assert_close(probed[7, 4:], product[0], rtol=1e-9, atol=1e-12)
    score = nac.fit(probed.detach(), seen.logits.detach(), LABELS, probe, bins=10, enough=20)
    edges, values = score.edges.numpy(), probed.detach().numpy()
    assert (np.diff(edges) > 0).all()
    np.testing.assert_allclose(edges + edges[::-1], 1)  # as dense near 1 as near 0
    assert 0 < edges[0] < 1e-4
    spread = values.std(axis=0)
    spread[spread == 0] = 1  # of neurons that are dead
    states = np.searchsorted(edges, scipy.special.expit(10 * values / spread), side="left")
    assert states.max() < 10
    expected = np.zeros(60)
    for neurons in (range(4), range(4, 9)):
        counts = np.array([[(states[:, k] == states[i, k]).sum() for k in neurons] for i in range(60)])
        expected -= np.minimum(counts / 20, 1).mean(axis=1)
    np.testing.assert_allclose(score(probed.detach(), seen.logits.detach()), expected, rtol=1e-9)


def test_nac_does_not_depend_on_the_size_of_the_products_nor_on_rounding(net, inputs):
    """Two orders of magnitude smaller, as on larger maps, they are the same states; noise of 1e-9 is no state."""
    seen = look(net, inputs, graph=True)
    probe, logits = nac.probe(seen.activations), seen.logits.detach()
    probed = probe(seen).detach()
    plain = nac.fit(probed, logits, LABELS, probe)(probed, logits)
    torch.testing.assert_close(nac.fit(probed / 128, logits, LABELS, probe)(probed / 128, logits), plain)
    dead = probed.clone()
    dead[:, 0] = 0
    noisy = dead.clone()
    noisy[:, 0] = 1e-9 * probed[:, 1].abs().max() * torch.randn(60, generator=torch.Generator().manual_seed(0))
    scores = [nac.fit(dead, logits, LABELS, probe)(given, logits) for given in (dead, noisy)]
    torch.testing.assert_close(*scores)


def test_pixels_and_tokens_are_averaged_and_vectors_stay():
    values = torch.arange(24.0)
    assert pooled.mean(values.view(1, 2, 3, 4)).tolist() == [[5.5, 17.5]]  # of channels
    assert pooled.mean(values.view(1, 12, 2)).tolist() == [[11, 12]]  # of tokens with two values
    assert torch.equal(pooled.mean(values.view(2, 12)), values.view(2, 12))


def test_layers_of_mahalanobis_add_up(net, inputs):
    seen = look(net, inputs)
    probe = pooled.probe(seen.activations)
    probed = probe(seen).detach()
    assert probe.sizes == (4, 5)
    parts = [maps.detach().mean(dim=(2, 3)) for maps in seen.activations.values()]
    expected = sum(mahalanobis.fit(part, LABELS)(part) for part in parts)
    actual = mahalanobis_layers.fit(probed, seen.logits.detach(), LABELS, probe)(probed, seen.logits.detach())
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", [0.0, 0.01, 0.5])
def test_odin_is_one_step_towards_the_predicted_class(net, inputs, step):
    seen = look(net, inputs, graph=True)
    actual = odin.Perturbed(step=step, temperature=5.0)(seen)[:, 0]
    expected = []
    for sample in inputs:
        leaf = sample[None].clone().requires_grad_()
        logits = net(leaf) / 5
        logits.log_softmax(dim=1).max().backward()  # up the predicted class's log-probability
        moved = (leaf + step * leaf.grad.sign()).clamp(0, 1) if step else leaf
        expected.append(1 - (net(moved.detach()) / 5).softmax(dim=1).max().item())
    np.testing.assert_allclose(actual.detach(), expected, rtol=1e-9)
    if step:
        assert actual.mean() < odin.Perturbed(step=0.0, temperature=5.0)(seen).mean()


def test_odin_chooses_the_step_that_leaves_known_data_most_confident(net, inputs):
    chosen = odin.choose(net, inputs, LABELS, steps=(0.0, 0.01, 0.2), temperatures=(2.0,))
    found = {step: odin.Perturbed(step, 2.0)(look(net, inputs, graph=True)).mean().item() for step in (0.0, 0.01, 0.2)}
    assert chosen.step == min(found, key=found.get)
    assert chosen.temperature == 2.0
    assert all(parameter.grad is None for parameter in net.parameters())
    # from wide open inputs nothing is cut
    free = odin.Perturbed(0.5, 2.0, None, None)(look(net, inputs, graph=True))
    assert not torch.isclose(free, odin.Perturbed(0.5, 2.0)(look(net, inputs, graph=True))).all()
    assert math.isfinite(free.sum().item())


@pytest.mark.parametrize(
    ("right", "wrong", "temperature"),
    [((2.0, 0.0, 0.0), (3.0, 2.0, -9.0), 1.0), ((3.0, 2.0, -9.0), (2.0, 0.0, 0.0), 1000.0)],
)
def test_odin_chooses_the_temperature_that_ranks_wrong_answers_above_right_ones(right, wrong, temperature):
    """At 1 the gap to the second logit decides (1 or 2), at 1000 that to the mean (4.3 or 1.3)."""
    logits, labels = torch.tensor([right, wrong]), torch.tensor([0, 1])
    options = {"steps": (0.0,), "low": None, "high": None}
    assert odin.choose(nn.Identity(), logits, labels, **options).temperature == temperature
    assert odin.choose(nn.Identity(), logits, torch.tensor([0, 0]), **options).temperature == max(odin.TEMPERATURES)


def test_odin_takes_the_step_of_its_paper(net, inputs):
    """The most confident of several is always the largest: it lost to the paper's fixed step, and to none at all."""
    chosen = odin.choose(net, inputs, LABELS)
    assert chosen.step == 0.0014
    steps = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008)
    assert odin.choose(net, inputs, LABELS, steps=steps, temperatures=(chosen.temperature,)).step == 0.008


class PooledHead(nn.Module):
    """Its head takes maps and averages afterwards, or is called by keyword."""

    def __init__(self, body, *, by_keyword):
        super().__init__()
        self.body, self.head, self.by_keyword = body, nn.Conv2d(5, 3, 1).double(), by_keyword

    def forward(self, x):
        maps = self.body(x)
        return (self.head(input=maps) if self.by_keyword else self.head(maps)).mean(dim=(2, 3))


@pytest.mark.parametrize("pooled_head", [False, True])
def test_mahalanobis_after_a_step_sees_the_input_that_is_nearer(net, inputs, pooled_head):
    model = PooledHead(net[:4], by_keyword=False).eval() if pooled_head else net
    head = "head" if pooled_head else "6"

    def features(x):
        return net[:4](x).mean(dim=(2, 3))

    score = mahalanobis.fit(features(inputs).detach(), LABELS, ridge=0.1)
    expected = []
    for sample in inputs:
        leaf = sample[None].clone().requires_grad_()
        score(features(leaf)).sum().backward()
        expected.append(features((leaf - 0.05 * leaf.grad.sign()).clamp(0, 1).detach())[0])
    probe = mahalanobis_odin.choose(model, inputs, LABELS, head=head, pooled=pooled_head, step=0.05)
    leaf = inputs.clone().requires_grad_()
    with recorded(model, probe.layers) as calls:
        logits = model(leaf)
    found = probe(Look(model, leaf, logits, {}, calls)).detach()
    torch.testing.assert_close(found, torch.stack(expected).detach())
    last = mahalanobis_odin.fit(moments.of(features(inputs).detach(), LABELS), dtype=torch.float64)
    assert last(found).mean() < last(features(inputs).detach()).mean()


def test_mahalanobis_after_a_step_refuses_what_shows_no_way(net, inputs):
    options = {"head": "6", "pooled": False}
    with pytest.raises(OptionError, match="step: expected a positive number, got 0"):
        mahalanobis_odin.choose(net, inputs, LABELS, step=0.0, **options)
    with pytest.raises(DataError, match="at least two classes in the first batch of the training set, got 60 of 1"):
        mahalanobis_odin.choose(net, inputs, LABELS * 0, **options)
    with pytest.raises(ModelError, match="its layer 'head' to be called on a tensor"):
        mahalanobis_odin.choose(PooledHead(net[:4], by_keyword=True), inputs, LABELS, head="head", pooled=True)


def test_no_signal_stands_twice_among_the_stages():
    """Maps and their mean, and a zero-padded copy, counted double in every score of layers."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ZeroPad2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    found = stages.activations(model, torch.rand(3, 1, 9, 9))
    assert [tuple(output.shape[1:]) for output in found.values()] == [(4, 7, 7), (6, 9, 9), (5,)]
