"""Accuracy under rotations, shifts and the like: what a search leaves, and what is proved below it."""

import time

import pytest
import torch
from torch import nn

import caveat
from caveat import bounds
from caveat.attacks import spatial
from caveat.attacks.transformation import Transformation
from caveat.audits import transformed as module
from caveat.audits.transformed import transformed
from caveat.errors import DataError, ModelError, OptionError
from caveat.inputs import fingerprints
from caveat.report.page import render

SIDE = 6


def upper() -> nn.Module:
    """1 where the upper half of a picture is brighter than the lower one."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2)).eval()
    half = torch.ones(SIDE, SIDE)
    half[SIDE // 2 :] = -1
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([-half.flatten(), half.flatten()]))
        model[1].bias.zero_()
    return model


def scenes(count: int = 24) -> torch.Tensor:
    """A bright row near the upper or the lower edge, or in the middle, where a small shift changes the answer."""
    generator = torch.Generator().manual_seed(3)
    inputs = 0.05 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    for k in range(count):
        inputs[k, 0, (1, 2, 4)[k % 3]] += 0.8
    return inputs


def run(model=None, inputs=None, **options):
    model, inputs = model or upper(), scenes() if inputs is None else inputs
    labels = model(inputs).argmax(1)
    options = {"transformation": Transformation(down=1.2), "generator": torch.Generator().manual_seed(0)} | options
    change = options.pop("transformation")
    return transformed(
        model, [(inputs, labels)], torch.arange(len(inputs)), labels, fingerprints(inputs), change, **options
    )


def test_what_is_certified_lies_below_what_the_search_left_on_every_picture():
    """Rows in the middle fall into the other half, rows near an edge do not."""
    found = run(pictures=24)
    assert found.clean.value == 1
    assert 0 < found.verified.value <= found.accuracy.value < 1
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert {picture.index % 3 for picture in found.pictures} == {1}
    for item in (found.clean, found.accuracy, found.verified):
        assert item.low <= item.value <= item.high
    assert all("shifted down by" in picture.change for picture in found.pictures)
    model, inputs = upper(), scenes()
    labels, limits = model(inputs).argmax(1), Transformation(down=1.2)
    safe = bounds.certify_transformed(model, inputs, labels, limits).verified
    broken = spatial(model, inputs, labels, limits, generator=torch.Generator().manual_seed(0)).success
    assert not bool((safe & broken).any())
    assert found.verified.value == pytest.approx(float(safe.double().mean()), rel=1e-5)


def test_misclassified_pictures_are_neither_safe_nor_shown():
    model, inputs = upper(), scenes()
    labels = model(inputs).argmax(1)
    labels[:3] = 1 - labels[:3]
    found = transformed(
        model, [(inputs, labels)], torch.arange(24), labels, fingerprints(inputs), Transformation(down=1.2),
        generator=torch.Generator().manual_seed(0), pictures=24,
    )  # fmt: skip
    assert found.clean.value == 21 / 24
    assert found.accuracy.value <= 21 / 24
    assert not {picture.index for picture in found.pictures} & {0, 1, 2}


def test_without_bounds_the_search_alone_is_told_with_the_reason():
    class Sine(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = upper()

        def forward(self, inputs):
            return torch.sin(self.inner(inputs) / 10)

    found = run(Sine().eval())
    assert (found.verified, found.certified_by, found.seconds) == (None, "", None)
    assert "sin" in found.why_not
    assert found.accuracy.value < 1


def test_a_network_that_contradicts_its_bounds_is_refused(monkeypatch):
    monkeypatch.setattr(
        module.bounds, "certify_transformed",
        lambda _, inputs, labels, *rest, **more: bounds.Certificate(torch.ones_like(labels), labels.double(), inputs),
    )  # fmt: skip
    with pytest.raises(ModelError, match="an attack broke an answer that bounds prove to stay"):
        run()


def test_the_time_is_shared_and_not_exceeded(monkeypatch):
    """Each picture takes ten seconds of this clock, whatever it is given."""
    now, given = [0.0], []

    def slow(model, inputs, labels, *rest, seconds, **more):
        now[0] += 10
        given.append(seconds)
        return bounds.Certificate(torch.zeros_like(labels), labels.double(), inputs)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module.bounds, "certify_transformed", slow)
    found = run(seconds=48.0)
    assert given == [48 / 24, 38 / 23, 28 / 22, 18 / 21, 8 / 20]
    assert found.verified.value == 0


def test_the_audit_shows_it():
    inputs = scenes(120)
    model = upper()
    options = {"scores": ["msp"], "replicas": 2, "attack_transform": Transformation(down=1.2, rotate=(0, 3))}
    record = caveat.audit(model, (inputs, model(inputs).argmax(1)), **options)
    [found] = record.transformed
    assert found.samples == module.SAMPLES
    assert found.ranges == {"rotate": [0, 3], "down": [-1.2, 1.2]}
    assert record.seconds["transform"] > 0
    assert record.attacked == []
    page = render(record)
    assert '<a href="#transformed">' in page
    assert "Certified against every transformation" in page
    few = caveat.audit(model, (inputs, model(inputs).argmax(1)), attack_samples=5, attack_certify="interval", **options)
    assert (few.transformed[0].samples, few.transformed[0].certified_by) == (5, "interval")


def test_errors_teach():
    rows = torch.rand(60, 4)
    with pytest.raises(OptionError, match=r"attack_transform: expected pictures .* got torch.float32 of shape"):
        caveat.audit(nn.Linear(4, 2).eval(), (rows, torch.arange(60) % 2), attack_transform=Transformation(rotate=3))
    with pytest.raises(OptionError, match="attack_transform: expected a range for one of rotate"):
        caveat.audit(upper(), (scenes(60), torch.arange(60) % 2), attack_transform=Transformation())
    with pytest.raises(DataError, match=r"inputs: expected values in \[0, 1\]"):
        run(inputs=scenes() - 1)
