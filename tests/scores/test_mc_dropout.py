"""Scores of a network's own dropout are those of its posterior, made for every input by the same masks."""

import math

import pytest
import torch
from torch import nn

from caveat.errors import ModelError, OptionError
from caveat.observations import DRAWS, observe
from caveat.posteriors import Predictive, dropout
from caveat.scores import FROM_DRAWS, FROM_DROPOUT, gradients, mc_dropout
from caveat.scoring.kinds import kind_of

SAME = {
    "dropout_msp": "mean_msp", "dropout_entropy": "predictive_entropy", "dropout_information": "mutual_information",
    "dropout_variance": "draw_variance",
}  # fmt: skip


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)).eval()


def test_they_are_the_scores_of_the_posterior_and_no_input_sees_the_others(generator):
    model, inputs = net(), torch.randn(30, 4, generator=generator)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in inputs.split(7)]
    probe = mc_dropout.probe(model, inputs, draws=5, seed=3)
    seen = observe(model, batches, probes={"dropout": probe})
    posterior = Predictive(model, dropout.of(model), draws=5, seed=3).eval()
    expected = observe(posterior, [(inputs, torch.zeros(30, dtype=torch.long))], features=False).probed[DRAWS]
    torch.testing.assert_close(seen.probed["dropout"], expected)
    torch.testing.assert_close(seen.logits, model(inputs))  # the network's answers are those without dropout
    for name, other in SAME.items():
        found = kind_of(name).apply(FROM_DROPOUT[name], seen.logits, None, seen.probed["dropout"])
        torch.testing.assert_close(found, FROM_DRAWS[other](expected.transpose(0, 1)))
        assert found.std() > 0


def test_golden_of_one_unit():
    """Of 20 draws k keep the unit, whose logit is then 2, else 0: p is 1 / (1 + e^-2) or 1/2."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 2, bias=False)).eval()
    model[1].weight.data = torch.tensor([[1.0], [0.0]])
    inputs = torch.ones(2, 1)
    labels = torch.zeros(2, dtype=torch.long)
    probed = observe(model, [(inputs, labels)], probes={"d": mc_dropout.probe(model, inputs)}).probed["d"]
    kept = (probed[0, :, 0] > 1).double().mean().item()
    assert 0 < kept < 1
    p = 1 / (1 + math.exp(-2))
    draws = probed.transpose(0, 1)
    assert FROM_DROPOUT["dropout_msp"](draws)[0].item() == pytest.approx(1 - (kept * p + (1 - kept) / 2), rel=1e-5)
    variance = 2 * kept * (1 - kept) * (p - 0.5) ** 2
    assert FROM_DROPOUT["dropout_variance"](draws)[0].item() == pytest.approx(variance, rel=1e-4)


def test_what_drops_nothing_out_is_refused():
    with pytest.raises(ModelError, match="drop"):
        mc_dropout.probe(nn.Sequential(nn.Linear(4, 3)).eval(), torch.ones(2, 4))
    with pytest.raises(OptionError, match="draws: expected at least 2, got 1"):
        mc_dropout.probe(net(), torch.ones(2, 4), draws=1)


def test_buffers_that_a_graph_holds_are_not_written_to(generator):
    """To tell which layers are random, buffers were restored though none had changed: gradients then failed."""

    class Own(nn.Module):
        def forward(self, x):
            return x.relu()

    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), Own(), nn.Dropout(0.5), nn.Linear(6, 3)).eval()
    inputs = torch.randn(6, 4, generator=generator)
    probes = {"dropout": mc_dropout.probe(model, inputs), "gradients": gradients.probe(model, inputs)}
    found = observe(model, [(inputs, torch.zeros(6, dtype=torch.long))], probes=probes).probed
    torch.testing.assert_close(found["gradients"], gradients.statistics(model, inputs).values.flatten(1))
