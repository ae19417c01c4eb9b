"""Gradient scores and meta classifiers in audits and guards: one shared probe, fitted where mistakes are honest."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tests.audits.conftest import in_batches, pictures
from tests.audits.test_audit import conv_net, numbers

import caveat
from caveat import Guard
from caveat.audits import cache
from caveat.cli.main import main
from caveat.guard import artefact, decision
from caveat.observations import observe
from caveat.scores import FROM_COLUMNS, FROM_GRADIENTS, gradients
from caveat.scoring import catalog, kinds, outliers


def known_set(generator, n=800, *, noise_level=0.12):
    labels = torch.arange(n) % 4
    return pictures(labels, generator, noise=noise_level), labels


def test_the_scores_share_one_probe_and_one_pass(model, known, ood, tmp_path: Path, monkeypatch):
    passes = []
    real = gradients.GradientProbe.__call__
    monkeypatch.setattr(gradients.GradientProbe, "__call__", lambda self, look: passes.append(1) or real(self, look))
    names = [*FROM_GRADIENTS, *FROM_COLUMNS]
    record = caveat.audit(model, known, ood=ood, scores=names, replicas=5, folder=tmp_path)
    assert [score.name for score in record.scores] == names
    assert {score.family for score in record.scores} == {"gradients", "meta"}
    batches = 10 + 5 + 5 + 1  # known, grey, noise, outliers
    assert len(passes) == batches
    again = caveat.audit(model, known, ood=ood, scores=names, replicas=5, folder=tmp_path)
    assert len(passes) == batches  # all kept
    assert numbers(again) == numbers(record)
    assert "Meta classifiers are fitted on half of the calibration split and on 200 auxiliary OOD" in record.split


def test_by_default_they_cost_nothing(model, known):
    record = caveat.audit(model, known, replicas=5)
    assert not {score.family for score in record.scores} & {"gradients", "meta"}


def test_meta_classifiers_learn_from_held_out_data_not_from_training_data(model, known, generator, monkeypatch):
    seen = {}

    def watched(columns, wrong, *, names):
        seen.update(rows=len(columns), wrong=int(wrong.sum()), names=names)
        return caveat.scores.meta.lasso(columns, wrong, names=names)

    monkeypatch.setitem(FROM_COLUMNS, "meta_lasso", watched)
    training = in_batches(*known_set(generator))
    caveat.audit(model, known, train=training, scores=["meta_lasso"], replicas=5, calibration_share=0.5)
    assert seen["rows"] == 150 + 200  # half of the calibration split: a guard's threshold rests on the other
    assert seen["wrong"] > 200
    assert seen["names"][0] == "1/l1"
    assert seen["names"][-1] == "entropy"
    assert len(seen["names"]) == 7 * 3 + 1
    own = [(torch.zeros(7, 1, 4, 4), torch.full((7,), -1))]
    caveat.audit(model, known, scores=["meta_lasso"], replicas=5, calibration_share=0.5, outliers=own)
    assert seen["rows"] == 150 + 7


def test_known_unknowns_make_noise_found(model, known, ood):
    record = caveat.audit(model, known, ood=ood, scores=["entropy", "meta_network"], replicas=5, calibration_share=0.5)
    found = {(d.score, d.ood): d.auroc.value for d in record.detections}
    assert found["meta_network", "noise"] > found["entropy", "noise"]
    assert found["meta_network", "noise"] > 0.8


@pytest.mark.parametrize("score", ["grad_l2", "meta_lasso", "meta_network", "meta_trees"])
def test_a_guard_keeps_its_promise_and_survives_saving(model, generator, score, tmp_path: Path):
    guard = Guard.fit(model, in_batches(*known_set(generator)), score=score, keep=0.9)
    images = known_set(generator)[0]
    verdict = guard(images)
    assert abs(verdict.accepted.double().mean() - 0.9) < 4 * (0.09 / 400 + 0.09 / 800) ** 0.5
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard")
    again = artefact.load(tmp_path / "guard", model)
    torch.testing.assert_close(again(images).score, verdict.score, rtol=1e-6, atol=1e-9)
    one_by_one = torch.cat([guard(image[None]).score for image in images[:5]])
    torch.testing.assert_close(verdict.score[:5], one_by_one, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_guard_from_kept_observations_is_that_of_fresh_ones(model, known, generator, tmp_path: Path, monkeypatch):
    caveat.audit(model, known, scores=["meta_ridge", "grad_l2"], replicas=5, folder=tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    for score in ("meta_ridge", "grad_l2"):
        monkeypatch.setattr("sys.argv", ["caveat", "guard", "fit", "out", "-o", f"guard-{score}", "--score", score])
        with suppress(SystemExit):  # what it leaves is looked at below
            main()
    place = cache.folder(tmp_path / "out")
    held_out, train, head, _ = cache.load(place)
    probe = gradients.probe(model, known[0][0])
    made = decision.fit(
        held_out, train, head, score="meta_ridge", probes={"gradients": probe}, outliers=cache.outliers(place)
    )
    images = known_set(generator, 40)[0]
    expected = Guard(model, made)(images).score
    torch.testing.assert_close(artefact.load("guard-meta_ridge", model)(images).score, expected, rtol=1e-9, atol=0)


def test_all_scores_of_a_convolutional_net(generator, known, ood):
    record = caveat.audit(conv_net(generator), known, ood=ood, scores=["all"], replicas=2)
    assert [score.name for score in record.scores] == catalog.resolve(["all"])
    assert all(score.summary and score.source for score in record.scores)


def test_columns_are_those_of_the_probe_and_the_entropy(model, known):
    probe = gradients.probe(model, known[0][0])
    seen = observe(model, known[:1], probes={"gradients": probe})
    columns = kinds.columns(seen.probed["gradients"], seen.logits)
    assert columns.shape[1] == len(probe.columns) + 1
    torch.testing.assert_close(columns[:, -1], caveat.scores.logits.entropy(seen.logits))


def test_noise_has_the_range_of_each_channel(generator):
    inputs = torch.stack([torch.rand(50, 6, 6), 5 + 2 * torch.rand(50, 6, 6)], dim=1)
    ((made, labels),) = outliers.like(inputs, generator, count=300)
    assert (labels == -1).all()
    assert made.shape == (300, 2, 6, 6)
    for channel in (0, 1):
        low, high = inputs[:, channel].aminmax()
        assert low <= made[:, channel].min() < low + 0.02 < high - 0.02 < made[:, channel].max() <= high
    tokens = torch.randint(3, 9, (40, 5), generator=generator)
    ((made, _),) = outliers.like(tokens, generator)
    assert made.dtype == torch.long
    assert set(made.flatten().tolist()) <= set(range(3, 9))
    ((vectors, _),) = outliers.like(torch.tensor([[0.0, -3.0], [1.0, -2.0]]), generator)
    assert ((vectors[:, 0] >= 0) & (vectors[:, 1] <= -2) & (vectors[:, 1] >= -3)).all()


def test_the_record_shows_the_statistics_and_what_is_learned(model, known, ood):
    record = caveat.audit(model, known, ood=ood, scores=["meta_lasso", "meta_trees"], replicas=2, calibration_share=0.4)
    assert [strip.statistic for strip in record.gradients] == list(gradients.STATISTICS)
    for strip in record.gradients:
        assert list(strip.bins) == list(strip.median) == ["correct", "wrong", "grey", "noise"]
        assert all(max(bins) == 1 and len(bins) == 32 for bins in strip.bins.values())
        assert strip.low < strip.high
    norm = record.gradients[1]
    assert norm.logarithmic
    assert norm.low <= norm.median["correct"] < norm.median["wrong"] <= norm.high
    lasso, trees = record.meta_classifiers
    assert lasso.penalty > 0
    assert max(map(abs, lasso.weights.values())) == abs(next(iter(lasso.weights.values()))) > 0
    assert trees.penalty is None
    assert not trees.weights
    assert len(lasso.importances) == 8  # of 11: two layers and all of them, seven statistics, the entropy
    assert 0.5 > max(lasso.importances.values()) > 0.02
    plain = caveat.audit(model, known, scores=["msp"], replicas=2)
    assert not plain.gradients
    assert not plain.meta_classifiers


def test_gradients_need_no_fit_set_even_of_a_shuffled_loader(model, generator):
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(*known_set(generator, 300)), batch_size=64, shuffle=True)
    record = caveat.audit(model, loader, scores=["grad_l2", "meta_ridge"], replicas=2)
    assert [score.family for score in record.scores] == ["gradients", "meta"]
