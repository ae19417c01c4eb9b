"""A guard keeps its promises on fresh data, abstains where it must, and is the same after a journey to disk."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.audits.conftest import CLASSES, in_batches, pictures

from caveat import Guard
from caveat.errors import DataError, ModelError, OptionError
from caveat.guard import artefact, decision, threshold
from caveat.guard.verdict import INVALID, REASONS
from caveat.scoring import catalog


def known_set(generator, n=1200):
    labels = torch.arange(n) % CLASSES
    return pictures(labels, generator), labels


@pytest.fixture
def guard(model, generator):
    return Guard.fit(model, in_batches(*known_set(generator)), score="entropy")


def test_the_promised_share_of_fresh_known_data_is_accepted(model, generator):
    """Over 20 independent splits the mean accepted share is 95 % within its interval; each is near it."""
    shares = []
    for seed in range(20):
        guard = Guard.fit(model, in_batches(*known_set(generator, 800)), score="msp", keep=0.9, seed=seed)
        shares.append(guard(known_set(generator, 800)[0]).accepted.double().mean())
    shares = torch.stack(shares)
    # threshold from 400 samples, judged on 800: standard error of one share is sqrt(.09/400 + .09/800)
    error = (0.09 / 400 + 0.09 / 800) ** 0.5
    assert abs(shares.mean() - 0.9) < 3 * error / 20**0.5 + 1 / 401
    assert (shares > 0.9 - 4 * error).all()


def test_a_score_is_seen_to_move_by_the_last_digits_of_what_it_looks_at(model, generator):
    """The largest logit moves by as much of itself as it is shaken, and in some sample by nearly that."""
    images, labels = known_set(generator)
    guard = Guard.fit(model, in_batches(images, labels), score="max_logit")
    largest = model(images).amax(1).abs().max().item()
    assert 0.5 * decision.LAST_DIGITS * largest < guard.decision.promise.rounding < 1.2 * decision.LAST_DIGITS * largest


def test_the_promised_error_holds_or_is_refused(model, generator):
    known = in_batches(*known_set(generator, 4000))
    everything = Guard.fit(model, known, score="msp", keep=0.999)
    images, labels = known_set(generator, 4000)
    before = (everything(images).predicted != labels).double().mean()
    level = float(before) / 2
    guard = Guard.fit(model, known, score="msp", max_error=level)
    verdict = guard(images)
    kept = verdict.accepted
    assert 0.2 < kept.double().mean() < 1
    assert (verdict.predicted[kept] != labels[kept]).double().mean() <= level * 1.2
    with pytest.raises(OptionError, match=r"max_error: 1e-05 can't be promised: the best of 12 thresholds accepts"):
        Guard.fit(model, known, score="msp", max_error=1e-5)


@pytest.mark.parametrize("score", ["entropy", "energy", "kl_matching", "mahalanobis", "knn", "vim", "ash_s"])
def test_verdicts_survive_saving_bit_for_bit(model, generator, score, tmp_path: Path):
    guard = Guard.fit(model, in_batches(*known_set(generator, 400)), score=score, calibration="vector")
    images = torch.cat([known_set(generator, 40)[0], torch.rand(40, 1, 4, 4, generator=generator)])
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard", model="text only")
    fresh = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES)
    )
    again = artefact.load(tmp_path / "guard", fresh)
    a, b = guard(images), again(images)
    for name in ("label", "accepted", "probs", "confidence", "score", "p_value", "reason", "aleatoric"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.explain(3) == b.explain(3)


def test_a_new_process_gives_the_same_verdicts(guard, model, generator, tmp_path: Path):
    images = known_set(generator, 64)[0]
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard")
    torch.save(images, tmp_path / "images.pt")
    code = """
import sys, torch
from torch import nn
from caveat.guard import artefact
net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
v = artefact.load(sys.argv[1] + "/guard", net)(torch.load(sys.argv[1] + "/images.pt", weights_only=True))
torch.save({"score": v.score, "probs": v.probs, "label": v.label}, sys.argv[1] + "/out.pt")
"""
    subprocess.run([sys.executable, "-c", "import torch; torch.set_num_threads(1)\n" + code, str(tmp_path)], check=True)
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    verdict = guard(images)
    for name, value in out.items():
        assert torch.equal(value, getattr(verdict, name)), name


def test_layers_and_the_second_look_work_in_a_guard(generator, tmp_path: Path):
    from tests.audits.test_audit import conv_net

    net, known = conv_net(generator), in_batches(*known_set(generator, 400))
    for score in ("mahalanobis_layers", "gram", "nac", "rankfeat", "odin", "mahalanobis_odin"):
        guard = Guard.fit(net, known, score=score)
        artefact.save(guard.decision, net.state_dict(), tmp_path / score)
        again = artefact.load(tmp_path / score, conv_net(generator))
        images = known_set(generator, 40)[0]
        assert torch.equal(guard(images).score, again(images).score)
        # a sample does not see the others
        one_by_one = torch.cat([guard(image[None]).score for image in images[:5]])
        torch.testing.assert_close(guard(images).score[:5], one_by_one, rtol=1e-4, atol=1e-5)


def test_nan_abstains_and_does_not_harm_the_others(guard, generator):
    images = known_set(generator, 8)[0]
    clean = guard(images)
    images[2, 0, 1, 1], images[5] = torch.nan, torch.inf
    verdict = guard(images)
    assert verdict.label[[2, 5]].tolist() == [-1, -1]
    assert verdict.reason[[2, 5]].tolist() == [2, 2]
    assert verdict.score[[2, 5]].isnan().all()
    assert "holds NaN or infinity" in verdict.explain(2)
    rest = [0, 1, 3, 4, 6, 7]
    assert torch.equal(verdict.score[rest], clean.score[rest])
    assert torch.equal(verdict.label[rest], clean.label[rest])


def test_a_verdict_says_what_it_rests_on(guard, generator):
    images = torch.cat([known_set(generator, 50)[0], torch.full((1, 1, 4, 4), 0.4)])
    verdict = guard(images)
    assert not verdict.accepted[-1]  # no class is nearer: as unsure as can be
    assert "abstained: predicted" in verdict.explain(50)
    assert verdict.p_value[-1] < 0.05
    accepted = int(verdict.accepted.nonzero()[0])
    assert "confident), entropy score" in verdict.explain(accepted)
    assert [REASONS[int(verdict.reason[row])] for row in (accepted, -1)] == ["accepted", "untrusted"]
    assert verdict.epistemic is None
    torch.testing.assert_close(verdict.probs.sum(dim=1), torch.ones(51).double())
    # p-values of in-distribution data are uniform: one in ten is below 0.1
    p = guard(known_set(generator, 4000)[0]).p_value
    assert (p <= 0.1).double().mean().item() == pytest.approx(0.1, abs=0.04)


def test_another_operating_point_needs_no_refit(guard, model, generator, tmp_path: Path):
    images = known_set(generator, 500)[0]
    loose, strict = guard.tuned(keep=0.99), guard.tuned(keep=0.5)
    assert strict(images).accepted.sum() < guard(images).accepted.sum() < loose(images).accepted.sum()
    assert torch.equal(strict(images).score, loose(images).score)
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard")
    (fitted,) = (tmp_path / "guard").glob("guard-*.safetensors")
    stamp = fitted.read_bytes()
    changed = artefact.tune(tmp_path / "guard", keep=0.5)
    assert changed.operating.threshold == strict.decision.promise.threshold
    assert fitted.read_bytes() == stamp


@pytest.mark.parametrize("role", ["guard", "model"])
def test_a_tampered_file_is_refused(guard, model, role, tmp_path: Path):
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard")
    (path,) = (tmp_path / "guard").glob(f"{role}-*.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is not the file that was written"):
        artefact.load(tmp_path / "guard", model)


def test_a_tampered_or_foreign_manifest_is_refused(guard, model, tmp_path: Path):
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard")
    path = tmp_path / "guard" / "manifest.json"
    text = path.read_text()
    data = json.loads(text)
    data["operating"]["threshold"] = 1e9
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="was altered after it was written"):
        artefact.load(tmp_path / "guard", model)
    path.write_text('{"schema_version": 1}')
    with pytest.raises(DataError, match="is not the manifest of a guard"):
        artefact.load(tmp_path / "guard", model)
    path.write_text("not json")
    with pytest.raises(DataError, match="is not JSON"):
        artefact.load(tmp_path / "guard", model)


def test_a_new_guard_replaces_the_old_one_and_leaves_nothing_else(guard, model, tmp_path: Path):
    folder = tmp_path / "guard"
    artefact.save(guard.decision, model.state_dict(), folder)
    before = {path.name for path in folder.iterdir()}
    artefact.save(guard.tuned(keep=0.5).decision, {n: t + 1 for n, t in model.state_dict().items()}, folder)
    after = {path.name for path in folder.iterdir()}
    assert len(before) == len(after) == 3
    assert before & after == {"manifest.json", next(name for name in before if name.startswith("guard-"))}
    assert artefact.load(folder, model).decision.promise.level == 0.5


@pytest.mark.parametrize("kind", ["other manifest", "notes beside a guard", "subfolder", "altered guard", "file"])
def test_what_is_not_a_guard_is_never_written_to(guard, model, kind, tmp_path: Path):
    folder = tmp_path / "guard"
    if kind == "other manifest":
        folder.mkdir()
        (folder / "manifest.json").write_text('{"name": "my web app"}')
    elif kind == "file":
        folder.write_text("three years of work")
    else:
        artefact.save(guard.decision, model.state_dict(), folder)
    if kind == "notes beside a guard":
        (folder / "notes.txt").write_text("three years of work")
    elif kind == "subfolder":
        (folder / "model-0123456789abcdef.safetensors").mkdir()
    elif kind == "altered guard":
        (path,) = folder.glob("model-*.safetensors")
        path.write_bytes(path.read_bytes() + b"0")
    before = {path: path.read_bytes() for path in [folder, *folder.rglob("*")] if path.is_file()}
    with pytest.raises(DataError, match="exists and is not a guard, or holds more than one"):
        artefact.save(guard.decision, model.state_dict(), folder)
    assert {path: path.read_bytes() for path in [folder, *folder.rglob("*")] if path.is_file()} == before


def test_a_killed_save_leaves_the_old_guard_and_can_be_repeated(guard, model, monkeypatch, tmp_path: Path):
    folder = tmp_path / "guard"
    artefact.save(guard.decision, model.state_dict(), folder)
    other = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    with monkeypatch.context() as patched:
        patched.setattr(artefact.stored, "write_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            artefact.save(guard.decision, other, folder)
    loaded = artefact.load(folder, model)
    assert all(torch.equal(loaded.model.state_dict()[name], model.state_dict()[name]) for name in other)
    artefact.save(guard.decision, other, folder)
    assert len(list(folder.iterdir())) == 3


def test_another_network_is_refused(guard, model, tmp_path: Path):
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard", model="mynet:build")
    with pytest.raises(ModelError, match=r"weights do not fit it .* it was made for mynet:build"):
        artefact.load(tmp_path / "guard", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4)))


def test_a_guard_moves_with_its_fitted_tensors(model, generator):
    guard = Guard.fit(model, in_batches(*known_set(generator, 400)), score="mahalanobis").double()
    assert guard.decision.score.fitted.whiten.dtype == torch.float64
    assert guard(known_set(generator, 10)[0].double()).score.isfinite().all()


def test_auto_says_what_it_used(model, generator):
    guard = Guard.fit(model, in_batches(*known_set(generator, 800)))
    assert guard.decision.score.name in catalog.resolve(None)
    assert "On in-distribution data alone" in guard.decision.why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "entrpy"}, "there is no 'entrpy'; did you mean 'entropy'"),
        ({"calibration": "temp"}, "calibration: there is no 'temp'"),
        ({"keep": 1.5}, "keep: expected a share"),
        ({"keep": 0.9, "max_error": 0.1}, "expected one of them"),
        ({"max_error": 0.0}, "max_error: expected a share"),
        ({"keep": 0.9999}, "keep: 0.9999 can't be promised from 200 held-out samples; give at least 9999"),
    ],
)
def test_options_are_checked(model, generator, options, message):
    with pytest.raises(OptionError, match=message):
        Guard.fit(model, in_batches(*known_set(generator, 400)), **({"score": "msp"} | options))


def test_shape_and_mode_are_checked(guard, generator):
    with pytest.raises(OptionError, match=r"inputs: expected shape \(n, 1, 4, 4\), got \(2, 1, 5, 5\)"):
        guard(torch.rand(2, 1, 5, 5))
    guard.model.train()
    with pytest.raises(ModelError, match="training mode"):
        guard(known_set(generator, 4)[0])


def test_the_error_bound_is_clopper_pearsons():
    # no error among n: the bound solves (1 - p)^n = alpha
    assert threshold.error_bound(0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-9)
    assert threshold.error_bound(3, 3, 0.05) == 1.0


def test_inputs_in_other_units_abstain_or_are_refused(guard, generator, tmp_path: Path):
    """`guard(x * 255)` was accepted at 100 %: the score knows nothing of units."""
    images, _ = known_set(generator, 40)
    mixed = torch.cat([images[:20], images[20:] * 255])
    for asked in (guard, saved_and_loaded(guard, tmp_path)):
        verdict = asked(mixed)
        assert not verdict.accepted[20:].any()
        assert torch.equal(verdict.accepted[:20], guard(images[:20]).accepted)
        assert "far outside of the range that the guard was fitted on" in verdict.explain(20)
        with pytest.raises(OptionError, match=r"expected floating numbers up to about .*, got whole numbers"):
            asked((images * 255).to(torch.uint8))


def test_grey_values_as_they_are_counted_abstain_in_floats_too(guard, generator):
    """A service gets 0, 5, 16 as JSON: below 50 times the range that the guard was fitted on, they were accepted."""
    images, _ = known_set(generator, 40)
    images = images / images.abs().max()
    guard.decision = replace(guard.decision, largest=1.0)
    usual = guard(images)
    for scale in (4, 16, 40):
        assert not guard(
            (images.abs() * scale).round().clamp_min(0).index_fill(1, torch.tensor(0), scale)
        ).accepted.any()
    black_and_white = images.abs().round()
    assert torch.equal(guard(torch.cat([images, black_and_white])).accepted[:40], usual.accepted)
    assert not bool((guard(black_and_white).reason == INVALID).any())


def saved_and_loaded(guard, folder):
    guard.save(folder / "guard")
    return Guard.load(folder / "guard", guard.model)
