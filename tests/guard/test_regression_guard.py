"""Guards of regression networks: both promises by simulation, and a guard read back."""

import dataclasses

import pytest
import torch
from tests.audits.test_regression import Line, data
from torch import nn

from caveat import posteriors
from caveat.errors import DataError, ModelError, OptionError
from caveat.guard import artefact, regression_artefact
from caveat.guard.regression import RegressionGuard, decide
from caveat.scores.distribution import of

OUTPUTS = "gaussian_std"


@pytest.fixture(scope="module")
def guard():
    return RegressionGuard.fit(Line().eval(), data(), outputs=OUTPUTS, keep=0.9, error=0.2)


def fresh(seed, *, n, wrong=1.0):
    """Gaussians whose deviations are told `wrong` times as large, and labels."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, generator=generator, dtype=torch.float64)
    scale = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    labels = mean + scale * torch.randn(n, generator=generator, dtype=torch.float64)
    return torch.stack([mean, wrong * scale], dim=1), labels


@pytest.mark.parametrize("wrong", [1.0, 0.3])
def test_both_promises_hold_as_often_as_they_say(wrong):
    kept = inside = accepted = total = 0
    for seed in range(150):
        values, labels = fresh(seed, n=160, wrong=wrong)
        found = of(values, OUTPUTS)
        made = decide(found.part(torch.arange(120)), labels[:120], form=OUTPUTS, keep=0.8, error=0.2, seed=seed)
        new, own = found.part(torch.arange(120, 160)), labels[120:]
        ok = new.total <= made.promise.threshold
        lower, upper = made.ends(new)
        kept, total = kept + int(ok.sum()), total + 40
        inside += int(((lower <= own) & (own <= upper) & ok).sum())
        accepted += int(ok.sum())
    assert 0.8 - 0.015 < kept / total < 0.8 + 1 / 61 + 0.015
    assert 0.8 - 0.015 < inside / accepted < 0.8 + 1 / 45 + 0.02


def test_the_interval_is_promised_among_the_accepted(guard):
    x, y = data(4000, seed=8)
    verdict = guard(x)
    ok = verdict.accepted
    inside = ((verdict.lower <= y) & (y <= verdict.upper))[ok].double().mean()
    assert float(ok.double().mean()) > 0.85
    assert float(inside) > 0.75


def test_uncertain_and_unreadable_inputs_abstain_and_say_why(guard):
    inputs = torch.tensor([[0.1, 0, 0], [7.0, 0, 0], [float("nan"), 0, 0], [1e6, 0, 0]])
    verdict = guard(inputs)
    assert verdict.accepted.tolist() == [True, False, False, False]
    assert verdict.reason.tolist() == [0, 1, 2, 2]
    assert verdict.prediction[2].isnan()
    assert verdict.lower[3].isnan()
    assert verdict.explain(0).startswith("accepted: predicted 0.2 (80% interval ")
    assert "total_variance 12.25 above the threshold" in verdict.explain(1)
    assert "NaN or infinity" in verdict.explain(2)


def test_a_guard_is_read_back_and_belongs_to_its_network(guard, tmp_path):
    guard.save(tmp_path / "g", model="mine:net")
    again = RegressionGuard.load(tmp_path / "g", Line(slope=0.0))
    inputs = data(50, seed=4)[0]
    one, other = guard(inputs), again(inputs)
    for name in ("accepted", "prediction", "lower", "upper", "score", "p_value"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    with pytest.raises(ModelError, match="do not fit"):
        RegressionGuard.load(tmp_path / "g", nn.Linear(3, 2))
    with pytest.raises(DataError, match="RegressionGuard loads it"):
        artefact.manifest(tmp_path / "g")


def test_damage_is_noticed(guard, tmp_path):
    guard.save(tmp_path / "g")
    path = tmp_path / "g" / "manifest.json"
    path.write_text(path.read_text().replace('"error": 0.2', '"error": 0.01'))
    with pytest.raises(DataError, match="altered"):
        RegressionGuard.load(tmp_path / "g", Line())


def test_another_share_gets_its_own_interval(guard, tmp_path):
    narrow = guard.tuned(keep=0.3)
    assert narrow.decision.promise.threshold < guard.decision.promise.threshold
    x, y = data(4000, seed=11)
    verdict = narrow(x)
    inside = ((verdict.lower <= y) & (y <= verdict.upper))[verdict.accepted].double().mean()
    assert 0.7 < float(inside) < 0.95
    guard.save(tmp_path / "g")
    changed = regression_artefact.tune(tmp_path / "g", keep=0.3)
    assert changed.operating.threshold == narrow.decision.promise.threshold
    loaded = RegressionGuard.load(tmp_path / "g", Line())
    assert torch.equal(loaded(x).lower, verdict.lower)


def test_a_guard_of_an_ensemble_looks_at_its_disagreement(tmp_path):
    nets = [Line(slope).eval() for slope in (1.9, 2.0, 2.1)]
    many = posteriors.Predictive(nets[0], posteriors.ensemble.of(nets)).eval()
    guard = RegressionGuard.fit(many, data(), outputs=OUTPUTS)
    assert guard.decision.score == "epistemic_variance"
    guard.save(tmp_path / "g")
    again = RegressionGuard.load(tmp_path / "g", Line())
    inputs = data(20, seed=1)[0]
    assert torch.equal(again(inputs).upper, guard(inputs).upper)
    assert float(guard(inputs).epistemic[0]) == pytest.approx(abs(float(inputs[0, 0])) * 0.0816497, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"outputs": None}, OptionError, "say what they mean"),
        ({"score": "epistemic_variance"}, OptionError, "do not tell epistemic_variance; they tell total_variance"),
        ({"score": "energy"}, OptionError, "no 'energy'"),
        ({"keep": 1.0}, OptionError, "keep"),
        ({"error": 0.001}, OptionError, "expected at least 999"),
        ({"train": data()}, DataError, "600 of its 600 samples are in train too"),
    ],
)
def test_what_cannot_be_promised_is_refused(options, error, word):
    with pytest.raises(error, match=word):
        RegressionGuard.fit(Line().eval(), data(), **{"outputs": OUTPUTS} | options)


def test_points_tell_no_uncertainty():
    with pytest.raises(OptionError, match="tells nothing of its uncertainty"):
        RegressionGuard.fit(nn.Linear(3, 1).eval(), data())


def test_inputs_of_another_shape_are_refused(guard):
    with pytest.raises(OptionError, match="shape"):
        guard(torch.ones(4, 2))
    assert dataclasses.is_dataclass(guard.decision)
