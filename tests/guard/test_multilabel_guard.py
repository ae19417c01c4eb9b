"""Guards of multi-label networks: both promises by simulation, and a guard read back."""

import pytest
import torch
from tests.audits.test_multilabel import NAMES, Net, Probabilities, data
from torch import nn

from caveat import models, posteriors
from caveat.errors import DataError, ModelError, OptionError
from caveat.guard import artefact, multilabel_artefact, regression_artefact
from caveat.guard.multilabel import MultilabelGuard, decide, score_of
from caveat.metrics.multilabel import missed_share_of_each


@pytest.fixture(scope="module")
def guard():
    return MultilabelGuard.fit(Net().eval(), data(), keep=0.9, error=0.2)


def fresh(seed, *, n, every):
    """Logits that are too large and labels; `every` sample has one, or some have none."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 5, generator=generator, dtype=torch.float64) - 0.5
    labels = torch.rand(n, 5, generator=generator) < torch.sigmoid(logits)
    if every:
        labels[:, 0] |= ~labels.any(dim=1)
    return (2.5 * logits)[None], labels


@pytest.mark.parametrize("every", [True, False])
def test_both_promises_hold_as_often_as_they_say(every):
    kept = total = 0
    missed = []
    for seed in range(250):
        logits, labels = fresh(seed, n=200, every=every)
        made = decide(logits[:, :160], labels[:160], keep=0.8, error=0.2, seed=seed)
        assert made.score == ("joint_energy" if every else "binary_entropy")
        new, own = logits[:, 160:], labels[160:]
        ok = score_of(made.score, new) <= made.promise.threshold
        kept, total = kept + int(ok.sum()), total + 40
        missed.append(missed_share_of_each(made.control(made.probs(new)), own)[ok & own.any(dim=1)])
    assert 0.8 - 0.015 < kept / total < 0.8 + 1 / 81 + 0.015
    # by theorem at most 0.2 and at least 0.2 - 2/(n + 1), n about 60 accepted ones with labels
    assert 0.2 - 2 / 55 - 0.015 < float(torch.cat(missed).mean()) < 0.2 + 0.01


def test_labels_are_promised_among_the_accepted(guard):
    x, y = data(4000, seed=8)
    verdict, truth = guard(x), y == 1
    ok = verdict.accepted
    assert float(ok.double().mean()) > 0.86
    assert float(missed_share_of_each(verdict.labels, truth)[ok & truth.any(dim=1)].mean()) < 0.24
    assert not verdict.labels[~ok].any()
    assert torch.equal(verdict.predicted[ok], verdict.labels[ok])
    assert 0 < verdict.probs.min() < verdict.probs.max() < 1


def test_uncertain_and_unreadable_inputs_abstain_and_say_why(guard):
    inputs = torch.zeros(4, 5)
    inputs[0], inputs[2, 1], inputs[3] = torch.tensor([3.0, -2, 2, 1, 0]), torch.nan, 1e6
    verdict = guard(inputs)
    assert verdict.accepted.tolist() == [True, False, False, False]
    assert verdict.reason.tolist() == [0, 1, 2, 2]
    assert "binary_entropy score" in verdict.explain(0)
    assert verdict.explain(0).startswith("accepted: labels ")
    assert "above the threshold" in verdict.explain(1)
    assert "NaN or infinity" in verdict.explain(2)
    assert torch.isnan(verdict.probs[2:]).all()
    assert not verdict.predicted[2:].any()
    assert verdict.p_value[1] < 0.1 < verdict.p_value[0]
    with pytest.raises(OptionError, match="expected shape"):
        guard(torch.zeros(2, 3))


def test_no_verdict_depends_on_the_batch(guard):
    x, _ = data(300, seed=4)
    whole = guard(x)
    for size in (1, 7, 128):
        parts = [guard(part) for part in x.split(size)]
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


def test_it_is_read_back_as_it_was_and_only_as_what_it_is(guard, tmp_path):
    guard.save(tmp_path / "g", model="mine:Net")
    again = MultilabelGuard.load(tmp_path / "g", Net(seed=9, noise=1.0))
    x, _ = data(200, seed=6)
    for name, value in vars(guard(x)).items():
        other = getattr(again(x), name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    assert multilabel_artefact.manifest(tmp_path / "g").model == "mine:Net"
    for other in (artefact, regression_artefact):
        with pytest.raises(DataError):
            other.manifest(tmp_path / "g")
    with pytest.raises(ModelError, match="do not fit"):
        MultilabelGuard.load(tmp_path / "g", nn.Linear(5, 4))
    next((tmp_path / "g").glob("guard-*")).write_bytes(b"")
    with pytest.raises(DataError, match="not the file that was written"):
        MultilabelGuard.load(tmp_path / "g", Net())


def test_another_share_gets_its_own_label_sets_in_memory_and_on_disk(guard, tmp_path):
    narrow = guard.tuned(keep=0.3)
    assert narrow.decision.control != guard.decision.control
    guard.save(tmp_path / "g")
    changed = multilabel_artefact.tune(tmp_path / "g", keep=0.3)
    assert changed.operating.threshold == narrow.decision.promise.threshold
    assert MultilabelGuard.load(tmp_path / "g", Net()).decision.control == narrow.decision.control
    x, y = data(4000, seed=11)
    verdict = narrow(x)
    there = verdict.accepted & (y == 1).any(dim=1)
    assert float(missed_share_of_each(verdict.labels, y == 1)[there].mean()) < 0.25


def test_a_guard_of_an_ensemble_and_of_a_dictionary(tmp_path):
    nets = [Net(noise=0.4, seed=seed).eval() for seed in range(3)]
    many = posteriors.Predictive(nets[0], posteriors.ensemble.of(nets)).eval()
    guard = MultilabelGuard.fit(many, data(), score="label_disagreement")
    guard.save(tmp_path / "many")
    x, _ = data(50, seed=1)
    assert torch.equal(MultilabelGuard.load(tmp_path / "many", Net())(x).probs, guard(x).probs)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, inputs):
            return {"features": inputs, "logits": self.net(inputs)}

    named = MultilabelGuard.fit(Named().eval(), data())
    named.save(tmp_path / "named")
    assert torch.equal(MultilabelGuard.load(tmp_path / "named", Named())(x).labels, named(x).labels)


def test_a_guard_of_a_normalised_network_is_read_around_the_bare_one(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.rand(400, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    wrapped = models.Normalized(net, 0.5, 0.25).eval()
    guard = MultilabelGuard.fit(wrapped, (images, (wrapped(images) > 0.1).long()))
    guard.save(tmp_path / "g")
    again = MultilabelGuard.load(tmp_path / "g", nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    assert torch.equal(again(images).probs, guard(images).probs)


def test_names_of_labels_come_from_the_set():
    class Known(list):
        classes = NAMES

    guard = MultilabelGuard.fit(Net().eval(), Known([data()]))
    assert guard.decision.names == tuple(NAMES)
    assert any(name in guard(data(50, 1)[0]).explain(0) for name in [*NAMES, "none"])


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"score": "label_disagreement"}, OptionError, "this is one"),
        ({"score": "energy"}, OptionError, "score"),
        ({"keep": 1.5}, OptionError, "keep"),
        ({"error": 0.001}, OptionError, "expected at least 999 that have a label"),
        ({"keep": 0.9999}, OptionError, "can't be promised"),
        ({"train": data()}, DataError, "800 of its 800 samples are in train too"),
        ({"held_out": data()[0]}, DataError, "have no labels"),
        ({"held_out": (data()[0], torch.zeros(800, 4))}, OptionError, "0 of its samples are left"),
        ({"model": Probabilities().eval()}, ModelError, "after a sigmoid"),
    ],
)
def test_what_cannot_be_promised_is_refused(change, kind, sentence):
    options = {"model": Net().eval(), "held_out": data()} | change
    with pytest.raises(kind, match=sentence):
        MultilabelGuard.fit(options.pop("model"), options.pop("held_out"), **options)
