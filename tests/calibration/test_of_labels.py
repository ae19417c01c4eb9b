"""Calibration of several labels: a temperature for each, and conformal risk control of those that are missed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import shapes_unchecked
from torch import Tensor

from caveat.calibration import per_label, risk_control, temperature
from caveat.errors import DataError, OptionError
from caveat.metrics.multilabel import missed_share_of_each


def problem(n: int, *, seed: int = 0, c: int = 5) -> tuple[Tensor, Tensor]:
    """Probabilities that are off, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, c, generator=generator, dtype=torch.float64) - 1
    return torch.sigmoid(2 * logits), torch.rand(n, c, generator=generator) < torch.sigmoid(logits)


def risk(probs: Tensor, labels: Tensor, threshold: float) -> float:
    """As the paper has it: n/(n + 1) mean loss + 1/(n + 1), of samples with labels."""
    known = labels.any(dim=1)
    missed = missed_share_of_each(probs >= threshold, labels)[known]
    return (float(missed.sum()) + 1) / (len(missed) + 1)


@given(seed=st.integers(0, 10_000), n=st.integers(12, 60), error=st.sampled_from([0.1, 0.2, 0.35]))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_the_threshold_is_the_largest_that_holds_the_promise(seed: int, n: int, error: float) -> None:
    probs, labels = problem(n, seed=seed)
    if int(labels.any(dim=1).sum()) < risk_control.fewest(error):
        return
    found = float(risk_control.fit(probs, labels, error=error).threshold)
    assert risk(probs, labels, found) <= error + 1e-9
    higher = probs[labels & (probs > found)]
    assert not len(higher) or risk(probs, labels, float(higher.min())) > error


def test_too_few_samples_promise_all_labels_only() -> None:
    probs, labels = problem(40)
    rows = labels.any(dim=1).nonzero().flatten()[:8]
    control = risk_control.fit(probs[rows], labels[rows], error=0.1)
    assert control.threshold == 0
    assert control(probs).all()
    assert risk_control.fit(probs[labels.any(dim=1)][:9], labels[labels.any(dim=1)][:9], error=0.1).threshold > 0


def test_samples_without_labels_change_nothing() -> None:
    probs, labels = problem(200)
    more = torch.cat([probs, torch.ones(500, 5)]), torch.cat([labels, torch.zeros(500, 5, dtype=torch.bool)])
    assert risk_control.fit(*more, error=0.2) == risk_control.fit(probs, labels, error=0.2)


def test_what_is_missed_is_as_promised_whatever_the_probabilities() -> None:
    missed = []
    for seed in range(300):
        probs, labels = problem(60, seed=seed)
        control = risk_control.fit(probs[:50], labels[:50], error=0.2)
        new = labels[50:].any(dim=1)
        missed.append(missed_share_of_each(control(probs[50:]), labels[50:])[new].mean())
    # 0.2 at most, and no less than by a jump of one sample's loss: 2/(n + 1)
    assert 0.2 - 2 / 45 - 0.015 < float(torch.stack(missed).mean()) < 0.2 + 0.015


def test_each_label_has_the_temperature_of_its_two_classes() -> None:
    probs, labels = problem(400)
    found = per_label.fit(probs.logit(), labels)
    for k in range(5):
        z = probs.logit()[:, k]
        alone = temperature.fit(torch.stack([-z / 2, z / 2], dim=1), labels[:, k].long())
        assert found.temperature[k].item() == pytest.approx(alone.temperature.item(), rel=1e-6)
    assert ((found.temperature > 1.5) & (found.temperature < 2.7)).all()  # the logits are twice too large
    logits = probs.logit().float()
    assert found(logits).dtype == torch.float32
    assert torch.equal(found(logits).argsort(dim=0), logits.argsort(dim=0))
    assert torch.equal(found(logits) > 0, logits > 0)


def test_hostile_arguments_are_refused() -> None:
    probs, labels = problem(30)
    with shapes_unchecked():
        for bad, error, kind in (
            ((probs + 1, labels), 0.1, DataError),
            ((probs[:, 0], labels[:, 0]), 0.1, DataError),
            ((probs[:20], labels), 0.1, DataError),
            ((probs, torch.zeros_like(labels)), 0.1, DataError),
            ((probs, labels), 0.0, OptionError),
            ((torch.full_like(probs, torch.nan), labels), 0.1, DataError),
        ):
            with pytest.raises(kind):
                risk_control.fit(*bad, error=error)
        for bad in ((probs[:20], labels), (probs[:0], labels[:0]), (torch.full_like(probs, torch.nan), labels)):
            with pytest.raises(DataError):
                per_label.fit(*bad)
