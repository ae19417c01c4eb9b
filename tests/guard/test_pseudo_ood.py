"""Thresholds from pictures that stand for OOD ones."""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.audits.conftest import CLASSES, in_batches, pictures
from torch import nn

from caveat import Guard
from caveat.cli.main import main
from caveat.errors import OptionError
from caveat.guard import artefact
from caveat.guard.pseudo_ood import pseudo_ood
from caveat.guard.threshold import promise, refusing
from caveat.models import WithAutoencoder


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_first_half_is_turned_and_the_rest_is_largely_hidden(generator):
    images = 0.1 + 0.9 * torch.rand(21, 1, 28, 28, generator=generator)
    made = pseudo_ood(images, seeded())
    for image, turned in zip(images[:11, 0], made[:11, 0], strict=True):
        assert torch.equal(turned, image.rot90(1)) or torch.equal(turned, image.rot90(3))
    hidden = made[11:] == 0
    assert torch.equal(torch.where(hidden, images[11:], made[11:]), images[11:])
    sides = hidden.flatten(1).sum(1).sqrt()
    assert torch.equal(sides, sides.round())
    assert sides.min() >= 16
    assert sides.max() <= 20
    assert torch.equal(pseudo_ood(images, seeded()), made)
    with pytest.raises(OptionError, match="images: expected at least two pictures, got 1"):
        pseudo_ood(images[:1], seeded())


def test_with_an_autoencoder_they_are_its_pictures_of_noised_ones(generator):
    images = torch.rand(300, 1, 28, 28, generator=generator)
    kept = WithAutoencoder(nn.Flatten(), nn.Identity())
    noised = pseudo_ood(images, seeded(), model=kept, sigma=0.0)
    zeros = (noised == 0).flatten(1).sum(1).sqrt()
    assert zeros[:150].min() == 10  # a square as in training over what is turned
    assert zeros[:150].max() == 14
    assert zeros[150:].min() == 16
    black = WithAutoencoder(nn.Flatten(), nn.Threshold(2.0, 0.25))
    assert torch.equal(pseudo_ood(images, seeded(), model=black), torch.full_like(images, 0.25))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_no_threshold_tells_both_sides_better(known: list[int], ood: list[int]):
    known_scores, unknown_scores = torch.tensor(known).double(), torch.tensor(ood).double()

    def balanced(threshold: float) -> float:
        return float((known_scores <= threshold).double().mean() + (unknown_scores > threshold).double().mean())

    wrong = torch.zeros(len(known), dtype=torch.bool)
    best = max(balanced(t) for t in range(-1, 10))
    if best <= 1:  # the scores do not tell them apart
        with pytest.raises(OptionError, match=r"against: the .* pseudo-OOD inputs score no higher"):
            promise(known_scores, wrong, against=unknown_scores)
        return
    made = promise(known_scores, wrong, against=unknown_scores)
    assert balanced(made.threshold) == pytest.approx(best, abs=1e-12)
    assert made.kind == "against"
    assert made.level == pytest.approx(float((unknown_scores > made.threshold).double().mean()))
    assert made.kept == pytest.approx(float((known_scores <= made.threshold).double().mean()))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_the_highest_threshold_that_refuses_a_share(scores: list[int], share: float):
    values = torch.tensor(scores).double()
    threshold = refusing(values, share)
    assert (values > threshold).double().mean() >= share - 1e-12
    higher = threshold + 1e-9
    assert (values > higher).double().mean() < share


def test_the_least_of_them_is_refused_and_an_empty_set_too():
    scores = torch.tensor([0.3, 0.1, 0.2])
    assert 0.1 - 1e-6 < refusing(scores, 1) < float(scores[1])
    for share, values in ((0.0, scores), (1.5, scores), (1.0, scores[:0])):
        with pytest.raises(OptionError, match=r"share: expected one in \(0, 1\]"):
            refusing(values, share)


def test_a_guard_against_pseudo_unknown_pictures(model, generator, tmp_path: Path):
    labels = torch.arange(1200) % CLASSES
    known = in_batches(pictures(labels, generator), labels)
    turned = pseudo_ood(pictures(labels, generator), seeded(), sides=(2, 3))
    strange = in_batches(turned, torch.full((1200,), -1))
    guard = Guard.fit(model, known, score="msp", against=strange)
    made = guard.decision.promise
    assert made.kind == "against"
    fresh = guard(pictures(labels, generator)).accepted.double().mean()
    found = 1 - guard(turned).accepted.double().mean()
    assert found == pytest.approx(made.level, abs=1e-12)
    assert fresh == pytest.approx(made.kept, abs=0.06)
    assert fresh + found > 1.05
    artefact.save(guard.decision, model.state_dict(), tmp_path / "guard")
    assert artefact.manifest(tmp_path / "guard").operating.kind == "against"
    assert torch.equal(artefact.load(tmp_path / "guard", model)(turned).accepted, guard(turned).accepted)
    assert guard.tuned(keep=0.9).decision.promise.kind == "keep"
    with pytest.raises(OptionError, match=r"keep, max_error, against: expected one of them, got keep=0\.9"):
        Guard.fit(model, known, score="msp", against=strange, keep=0.9)


def test_caveat_fit_against_a_set_of_the_audit(model, generator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    labels = torch.arange(600) % CLASSES
    np.savez("known.npz", images=pictures(labels, generator).numpy(), labels=labels.numpy())
    torch.save(model, "net.pt")
    Path("netfile.py").write_text("import torch\n\ndef net():\n    return torch.load('net.pt', weights_only=False)\n")
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["caveat", *arguments])
        with suppress(SystemExit):
            main()
        out = capsys.readouterr()
        return out.out, out.err

    run("audit", "--model", "netfile:net", "--test", "npz:known.npz", "--ood", "turned=quarter-turned",
        "--score", "msp", "-o", "out", "--replicas", "5")  # fmt: skip
    out, _ = run("guard", "fit", "out", "--score", "msp", "--against", "turned", "-o", "guarded")
    assert "rejects" in " ".join(out.split())
    assert artefact.manifest("guarded").operating.kind == "against"
    _, err = run("guard", "fit", "out", "--score", "msp", "--against", "other", "-o", "guarded2")
    assert "against: this audit saw no set 'other'; it saw turned" in " ".join(err.split())
    assert not Path("guarded2").exists()
    out, _ = run("guard", "fit", "out", "--score", "msp", "--max-error", "0.3", "--ood-share", "0.05", "--against",
                 "turned", "-o", "mixed")  # fmt: skip
    assert "also where up to 5.0% of the inputs are OOD, if those are like the held-out OOD set" in " ".join(
        out.split()
    )
    assert artefact.manifest("mixed").operating.ood_share == 0.05
    out, _ = run("guard", "tune", "mixed", "--keep", "0.9", "--each-class")
    assert "accepts a fresh input of every class with probability 90.0% or more" in " ".join(out.split())
    assert artefact.manifest("mixed").operating.kind == "keep_each_class"
    out, _ = run("guard", "tune", "mixed", "--max-error", "0.3")
    assert "where OOD inputs come too, nothing is guaranteed" in " ".join(out.split())
