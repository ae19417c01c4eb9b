"""Accuracy under attack, against what is known of a linear network."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import caveat
from caveat.audits.assess import split
from caveat.audits.attacked import attacked
from caveat.audits.audit import audit
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import fingerprints
from caveat.report.page import render


def brightness():
    """Says 1 where the sum of four pixels is above 2: e per pixel moves the sum by 4 e, a change of length e by 2 e."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, [10.0] * 4]))
        model[1].bias.copy_(torch.tensor([0.0, -20.0]))
    return model


def pixels(sums):
    return (torch.tensor(sums)[:, None, None, None] / 4).expand(-1, 1, 2, 2).clone()


# distances of the sum to 2: 0.24, 0.6, 1.2, 0.2; the last one's label is wrong from the start
SUMS, LABELS = [2.24, 2.6, 0.8, 1.8], torch.tensor([1, 1, 0, 1])


def run(**options):
    batches = [(pixels(SUMS), LABELS)]
    options = {"radii": [0.1, 0.2, 0.4], "generator": torch.Generator().manual_seed(0)} | options
    return attacked(brightness(), batches, torch.arange(4), LABELS, fingerprints(pixels(SUMS)), **options)


def test_accuracy_by_radius():
    """Norm inf breaks at 0.06, 0.15 and 0.3 a pixel; norm 2 at twice that."""
    found = run()
    assert [(r.radius, r.accuracy) for r in found.radii] == [(0.0, 0.75), (0.1, 0.5), (0.2, 0.25), (0.4, 0.0)]
    assert all(r.low <= r.accuracy <= r.high for r in found.radii)
    assert (found.norm, found.samples) == ("inf", 4)
    assert [r.accuracy for r in run(norm=2).radii] == [0.75, 0.75, 0.5, 0.25]


def test_wilsons_interval_by_hand():
    """2 of 4: (0.5 + 0.4802) / 1.9604 = 0.5, half width 1.96 / 1.9604 sqrt(0.0625 + 0.06003) = 0.35."""
    half = run().radii[1]
    assert (half.low, half.high) == (pytest.approx(0.150, abs=1e-3), pytest.approx(0.850, abs=1e-3))


def test_the_worst_come_first_with_their_pictures():
    found = run()
    assert [(p.index, p.radius, p.label, p.predicted) for p in found.pictures] == [
        (0, 0.1, "1", "0"), (1, 0.2, "1", "0"), (2, 0.4, "0", "1"),
    ]  # fmt: skip
    first = found.pictures[0]
    before, after, change = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in (first.before, first.after, first.change)
    )
    assert (before == round(0.56 * 255)).all()
    assert (after == round(0.46 * 255)).all()
    assert (change == 0).all()  # darker by the largest change everywhere
    assert first.confidence == pytest.approx(1 / (1 + math.exp(-1.6)), abs=1e-4)  # the sum is 1.84 now
    assert len(run(pictures=1).pictures) == 1


def test_only_the_given_rows_are_attacked_and_the_seed_decides_which():
    found = run(samples=2)
    assert found.samples == 2
    batches = [(pixels(SUMS), LABELS)]
    part = attacked(
        brightness(),
        batches,
        torch.tensor([1]),
        LABELS,
        fingerprints(batches[0][0]),
        radii=[0.2],
        generator=torch.Generator(),
        classes=["a", "b"],
    )
    assert [(p.index, p.label, p.predicted) for p in part.pictures] == [(1, "b", "a")]


def test_what_is_no_picture_has_none():
    model = nn.Linear(3, 2).eval()
    inputs = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
    labels = model(inputs).argmax(1)
    found = attacked(
        model,
        [(inputs, labels)],
        torch.arange(10),
        labels,
        fingerprints(inputs),
        radii=[5.0],
        generator=torch.Generator(),
        low=None,
        high=None,
    )
    assert found.radii[1].accuracy == 0
    assert found.pictures == []


def test_errors_teach():
    for radii in ([], [0.0], [-0.1], [math.inf]):
        with pytest.raises(OptionError, match="positive, finite radii"):
            run(radii=radii)
    with pytest.raises(OptionError, match="at least 1"):
        run(samples=0)


def test_the_inputs_attacked_are_those_observed_whatever_the_loader_does():
    inputs = pixels(SUMS)
    shuffled = DataLoader(TensorDataset(inputs, LABELS), shuffle=True)
    options = {"radii": [0.1, 0.2, 0.4], "generator": torch.Generator().manual_seed(0)}
    found = attacked(brightness(), shuffled, torch.arange(4), LABELS, fingerprints(inputs), **options)
    assert [point.accuracy for point in found.radii] == [point.accuracy for point in run().radii]
    with pytest.raises(DataError, match="not those that were observed"):
        attacked(brightness(), shuffled, torch.arange(4), LABELS, fingerprints(inputs + 1), **options)


def test_the_audit_attacks_what_it_judges_on():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(60, 1, 2, 2, generator=generator)
    labels = (inputs.sum((1, 2, 3)) > 2).long()
    record = audit(
        brightness(), [(inputs, labels)], scores=["msp"], calibrations=[], replicas=2, attack_radii=[0.05, 0.5],
        attack_norm=2, attack_samples=30,
    )  # fmt: skip
    (found,) = record.attacked
    assert (found.norm, found.samples) == ("2", 30)
    assert found.radii[0].accuracy == 1
    assert 0 < found.radii[1].accuracy < 1
    judged = set(split(60, 0.2, 0)[1].tolist())
    assert {picture.index for picture in found.pictures} <= judged
    assert record.seconds["attack"] > 0
    assert audit(brightness(), [(inputs, labels)], scores=["msp"], calibrations=[], replicas=2).attacked == []


@pytest.mark.parametrize("method", ["interval", "deeppoly"])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_what_is_certified_lies_below_what_an_attack_leaves(method, norm):
    """Of a linear network the bounds are exact: certified and attacked accuracy meet."""
    found = run(norm=norm, certify=method)
    assert found.certified_by == method
    assert found.radii[0].verified is None
    for item in found.radii[1:]:
        assert item.verified <= item.accuracy
        if norm == math.inf or method == "deeppoly":
            assert item.verified == item.accuracy
    assert all(item.verified is None for item in run().radii)


def small_net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3)).eval()


def test_an_audit_certifies_answers_and_detection():
    generator = torch.Generator().manual_seed(0)
    model, inputs = small_net(), torch.rand(240, 1, 4, 4, generator=generator)
    labels = model(inputs).argmax(1)
    ood = {"far": torch.rand(60, 1, 4, 4, generator=generator)}
    options = {"scores": ["msp"], "replicas": 2, "attack_radii": [0.02, 0.1], "attack_samples": 40}
    record = caveat.audit(model, (inputs, labels), ood=ood, attack_certify="deeppoly", **options)
    [found] = record.attacked
    assert 1 >= found.radii[1].accuracy >= found.radii[1].verified >= found.radii[2].verified
    assert found.radii[1].verified > 0
    near, wide = found.guaranteed
    assert (near.ood, near.samples, near.radius, wide.radius) == ("far", 40, 0.02, 0.1)
    assert near.auroc == wide.auroc >= near.guaranteed >= wide.guaranteed
    assert "Guaranteed AUROC" in render(record)
    wide = {"wide": 2 + ood["far"]}  # outside of [0, 1]
    other = caveat.audit(model, (inputs, labels), ood=wide, attack_certify="interval", **options)
    assert not other.attacked[0].guaranteed
    assert any(note.startswith("Not certified: wide.") for note in other.notes)
    with pytest.raises(OptionError, match="expected attack_radii beside it"):
        caveat.audit(model, (inputs, labels), scores=["msp"], attack_certify="deeppoly")
    with pytest.raises(OptionError, match="attack_certify: there is no 'crown'"):
        caveat.audit(model, (inputs, labels), attack_certify="crown", **options)


def test_a_network_without_known_bounds_is_refused_before_any_work():
    class Sine(nn.Module):
        def forward(self, inputs):
            return torch.sin(inputs.flatten(1))[:, :3]

    seen = []
    with pytest.raises(ModelError, match="sin"):
        caveat.audit(
            Sine().eval(), (torch.rand(60, 1, 4, 4), torch.arange(60) % 3), attack_radii=[0.1],
            attack_certify="interval", say=seen.append,
        )  # fmt: skip
    assert not seen
