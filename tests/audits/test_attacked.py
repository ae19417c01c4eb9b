"""Accuracy under attack, against what is known of a linear network."""

import base64
import copy
import io
import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import caveat
from caveat.attacks.transformation import Transformation
from caveat.audits.assess import split
from caveat.audits.attacked import attacked
from caveat.audits.audit import audit
from caveat.audits.pictures import mistake
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


def test_what_cannot_be_attacked_is_refused_before_the_pass_over_the_data():
    seen = []

    class Counting(nn.Module):
        def forward(self, inputs):
            seen.append(len(inputs))
            return inputs.flatten(1)

    inputs, labels = torch.rand(300, 1, 2, 2), torch.arange(300) % 4
    change = {"attack_transform": Transformation(rotate=5)}
    for options, message in (
        ({"attack_radii": [0.1]}, r"attack_radii: expected inputs in \[0, 1\], got -.*Normalized"),
        (change, r"attack_transform: expected inputs in \[0, 1\], got -.*Normalized"),
        ({"attack_radii": [-0.1]}, "attack_radii: expected positive, finite radii"),
        ({"attack_radii": [0.1], "attack_smallest": -1}, "attack_smallest: expected at least 0"),
    ):
        given = TensorDataset(4 * inputs - 2 if "expected inputs" in message else inputs, labels)
        with pytest.raises(OptionError, match=message):
            caveat.audit(Counting().eval(), DataLoader(given, batch_size=10), scores=["msp"], replicas=2, **options)
        assert sum(seen) < 100  # of 300
        seen.clear()


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
    assert not any("in float" in note for note in other.notes)
    coarse = caveat.audit(copy.deepcopy(model).half(), (inputs.half(), labels), attack_certify="deeppoly", **options)
    assert any("computes in float16, whose rounding is part of every bound" in note for note in coarse.notes)
    with pytest.raises(OptionError, match="expected attack_radii or attack_transform beside it"):
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


def linear(norm: float):
    """Distances of the sum to 2, over its slope in the dual norm: of norm 1 all of it in one pixel."""
    return {1: [0.24, 0.6, 1.2], 2: [0.12, 0.3, 0.6], math.inf: [0.06, 0.15, 0.3]}[norm]


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_the_smallest_perturbations_of_a_linear_network_are_its_distances(norm):
    found = run(norm=norm).smallest
    assert (found.samples, found.found, found.masked) == (3, 3, 0)
    assert found.quartiles == pytest.approx(linear(norm), rel=0.02)
    assert [item.distance for item in found.nearest] == sorted(item.distance for item in found.nearest)
    assert [(item.index, item.label, item.predicted) for item in found.nearest] == [
        (0, "1", "0"), (1, "1", "0"), (2, "0", "1"),
    ]  # fmt: skip
    assert all(png.startswith("iVBOR") for item in found.nearest for png in (item.before, item.after, item.change))
    assert run(norm=norm, nearest=0).smallest is None
    assert run(norm=norm, nearest=2).smallest.samples == 2
    assert len(run(norm=norm, pictures=1).smallest.nearest) == 1


def test_a_smallest_perturbation_changes_the_answer_and_is_no_larger_than_the_radius_that_did(monkeypatch):
    """Distances are measured at inputs that the network itself answers otherwise."""
    model, inputs = small_net(), torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels, seen = model(inputs).argmax(1), {}
    whole = sys.modules["caveat.audits.smallest"]
    shown = whole._shown
    monkeypatch.setattr(whole, "_shown", lambda *given: seen.update(given=given) or shown(*given))
    for norm, radii in ((2, [0.1, 0.4]), (math.inf, [0.02, 0.1])):
        found = attacked(
            model, [(inputs, labels)], torch.arange(60), labels, fingerprints(inputs), radii=radii, norm=norm,
            generator=torch.Generator().manual_seed(0), nearest=60, pictures=60,
        )  # fmt: skip
        _, clean, changed, far, order, truth, _, _ = seen["given"]
        assert bool((model(changed[order]).argmax(1) != truth[order]).all())
        measured = torch.linalg.vector_norm((changed - clean).flatten(1), norm, dim=1)[order]
        assert [item.distance for item in found.smallest.nearest] == pytest.approx(measured.tolist(), rel=1e-4)
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1
        for radius in found.radii[1:]:  # what the attack breaks within a radius has a perturbation that small
            within = sum(item.distance <= radius.radius * (1 + 1e-5) for item in found.smallest.nearest)
            assert within >= round((1 - radius.accuracy) * 60)
        assert bool((far[order].diff() >= 0).all())


def test_an_answer_is_that_of_the_logits_where_probabilities_are_equal():
    """Of logits that are very small, the probabilities of all classes are one float32 number."""

    class Small(nn.Module):
        def forward(self, inputs):
            return 1e-9 * inputs.flatten(1)

    after = torch.tensor([[[0.1, 0.2], [0.9, 0.3]]])
    assert mistake(Small().eval(), after, after, 0, ["a", "b", "c", "d"]).predicted == "c"


def test_what_a_masked_gradient_hides_is_said_and_no_distance_is_made_up():
    class Rounding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = brightness()

        def forward(self, inputs):
            return self.inner((inputs * 10).round() / 10)

    batches = [(pixels(SUMS), LABELS)]
    found = attacked(
        Rounding().eval(), batches, torch.arange(4), LABELS, fingerprints(pixels(SUMS)), radii=[0.01, 0.2],
        generator=torch.Generator().manual_seed(0),
    ).smallest  # fmt: skip
    assert found.masked == found.samples > 0
    assert found.found < found.samples
    assert found.quartiles[2] is None


def test_inputs_that_are_no_pictures_have_distances_too():
    model = nn.Linear(3, 2).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0] * 3, [1.0] * 3]))
        model.bias.copy_(torch.tensor([1.5, 0.0]))
    inputs = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    record = audit(
        model, [(inputs, model(inputs).argmax(1))], scores=["msp"], calibrations=[], replicas=2, attack_radii=[0.1]
    )
    near = record.attacked[0].smallest
    assert near.samples > 0
    assert all(item.before == item.after == item.change == "" for item in near.nearest)
    assert "Smallest adversarial perturbations" in render(record)
    assert "Size of the change" in render(record)


def test_a_record_without_smallest_perturbations_and_transformations_opens(tmp_path):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(60, 1, 2, 2, generator=generator)
    options = {"scores": ["msp"], "calibrations": [], "replicas": 2, "attack_radii": [0.05]}
    record = audit(brightness(), [(inputs, (inputs.sum((1, 2, 3)) > 2).long())], **options)
    record.save(tmp_path / "record.json")
    old = json.loads((tmp_path / "record.json").read_text())
    del old["transformed"], old["attacked"][0]["smallest"]
    (tmp_path / "record.json").write_text(json.dumps(old))
    found = caveat.Record.load(tmp_path / "record.json")
    assert (found.transformed, found.attacked[0].smallest) == ([], None)
    assert "Smallest adversarial" not in render(found)
