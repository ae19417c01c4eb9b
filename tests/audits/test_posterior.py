"""An audit of many networks: what one network has not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import caveat
from caveat import data, posteriors
from caveat.audits.audit import audit, audit_arrays
from caveat.errors import OptionError
from caveat.observations import observe
from caveat.report.page import render
from caveat.scores import draws as scores


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int) -> nn.Sequential:
    generator = seeded(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(12, 16, generator=generator) / 3)
        model[3].weight.copy_(torch.randn(4, 12, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def many() -> posteriors.Predictive:
    models = [network(k) for k in range(5)]
    # the same answer in most cases: biased towards one class each picture's brightness names
    return posteriors.Predictive(models[0], posteriors.ensemble.of(models))


def pictures(n: int, seed: int) -> data.Source:
    images = torch.rand(n, 1, 4, 4, generator=seeded(seed))
    return data.from_tensors(images, torch.arange(n) % 4, name=f"set {seed}")


def test_the_record_splits_doubt_and_says_what_a_draw_buys(many: posteriors.Predictive, tmp_path: Path) -> None:
    known, ood = pictures(120, 1), pictures(60, 2)
    record = audit(many, known, ood={"other": ood}, replicas=20, folder=tmp_path)
    assert record.draws is not None
    assert record.draws.count == 5
    assert [item.set for item in record.draws.sets] == ["correct", "wrong", "other"]
    for item in record.draws.sets:
        assert item.total == pytest.approx(item.aleatoric + item.epistemic, rel=1e-4)
        assert 0 < item.epistemic < item.total
        assert 0.2 <= item.agreement <= 1
    other = record.draws.sets[2]
    draws = many.draws(torch.cat([x for x, _ in ood])).double()
    assert other.epistemic == pytest.approx(float(scores.mutual_information(draws).mean()), rel=1e-4)
    assert [item.draws for item in record.draws.gain] == [1, 2, 3, 5]
    last = record.draws.gain[-1]
    assert last.auroc["other"] == pytest.approx(
        next(d.auroc.value for d in record.detections if d.score == "predictive_entropy"), abs=1e-3
    )
    families = {score.name: score.family for score in record.scores}
    assert families["mutual_information"] == "draws"
    assert "knn" not in families
    # kept and used again: the same record from the same folder, without another pass
    again = audit(many, known, ood={"other": ood}, replicas=20, folder=tmp_path)
    assert again.draws == record.draws
    page = render(record)
    assert "Uncertainty of the ensemble" in page
    assert 'data-chart="gain"' in page


def test_one_network_has_no_such_part() -> None:
    record = audit(network(0), pictures(80, 1), scores=["msp"], replicas=10)
    assert record.draws is None
    assert "Uncertainty of the ensemble" not in render(record)
    with pytest.raises(OptionError, match="needs the samples of a posterior"):
        audit(network(0), pictures(80, 1), scores=["mutual_information"])


def test_what_needs_one_network_is_told(many: posteriors.Predictive) -> None:
    with pytest.raises(OptionError, match="needs the features of one network"):
        audit(many, pictures(80, 1), scores=["knn"])
    with pytest.raises(OptionError, match="attack one of its networks"):
        audit(many, pictures(80, 1), attack_radii=[0.1])


def test_draws_of_any_framework(many: posteriors.Predictive, tmp_path: Path) -> None:
    known = pictures(120, 1)
    draws = many.draws(torch.cat([x for x, _ in known]))
    np.savez(tmp_path / "said.npz", draws=draws.numpy(), labels=known.labels.numpy())
    record = audit_arrays(tmp_path / "said.npz", replicas=10)
    assert record.draws is not None
    assert "mutual_information" in [score.name for score in record.scores]
    direct = audit(many, known, replicas=10)
    assert record.draws.sets == direct.draws.sets  # type: ignore[union-attr]


def test_observations_with_draws_survive_a_file(many: posteriors.Predictive, tmp_path: Path) -> None:
    seen = observe(many, pictures(30, 1), path=tmp_path / "seen.safetensors")
    assert seen.probed["draws"].shape == (30, 5, 4)
    assert seen.features is None
    torch.testing.assert_close(seen.logits.exp(), seen.probed["draws"].softmax(dim=2).mean(dim=1))


def test_a_guard_of_many_networks_tells_its_doubts_apart(many: posteriors.Predictive, tmp_path: Path) -> None:
    guard = caveat.Guard.fit(many, pictures(200, 1), score="mutual_information", keep=0.9)
    inputs = torch.rand(20, 1, 4, 4, generator=seeded(5))
    inputs[3, 0, 0, 0] = torch.nan
    verdict = guard(inputs)
    draws = many.draws(inputs.nan_to_num(0)).double()
    fine = torch.arange(20) != 3
    torch.testing.assert_close(verdict.epistemic[fine], scores.mutual_information(draws)[fine], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(verdict.aleatoric[fine], scores.expected_entropy(draws)[fine], rtol=1e-4, atol=1e-7)
    assert verdict.epistemic[3].isnan()
    assert not verdict.accepted[3]
    auto = caveat.Guard.fit(many, pictures(200, 1), keep=0.9)
    assert auto.decision.score.kind.family in ("logits", "draws")


def test_a_posterior_that_does_not_describe_its_network_is_told() -> None:
    """The network is always right, the samples of its posterior never."""
    right = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        right[1].weight.copy_(10 * torch.eye(4).repeat_interleave(4, dim=1))
        right[1].bias.zero_()
    labels = torch.arange(200) % 4
    images = torch.eye(4)[labels].repeat_interleave(4, dim=1).reshape(-1, 1, 4, 4) * 0.9
    known = data.from_tensors(images, labels, name="known")
    rotated = {name: weight.roll(1, 0) for name, weight in right.state_dict().items()}
    good, bad = right.state_dict(), rotated
    for members, told in ([good, good], 0), ([bad, bad], 1):
        sampled = posteriors.Predictive(right, posteriors.ensemble.stack(members)).eval()
        record = audit(sampled, known, scores=["msp"], calibrations=["temperature"], replicas=5)
        said = [text for text in record.warnings if "with its own weights for 100.0%" in text]
        assert len(said) == told
        assert not told or "correct for 0.0%" in said[0]
