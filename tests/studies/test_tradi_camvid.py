"""The study of street scenes runs from pictures to findings; its pixel figures are those of all pixels."""

import base64
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from caveat.data.segmentation import open_camvid
from caveat.models import pspnet
from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.kit.pixels import measure
from caveat.studies.kit.toy_scenes import write_toy_camvid
from caveat.studies.tradi_camvid.run import on_one_set
from caveat.studies.tradi_camvid.training import Recipe, Size, recipes

OOD = ("pedestrian", "bicyclist", "car")


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "CamVid"
    write_toy_camvid(root)
    return root


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, study("tradi-camvid")(folder, scale="smoke", seed=0, say=lambda _: None)


def test_from_pictures_to_findings(done):
    folder, found = done
    found.save(folder / "findings.json")
    assert Findings.load(folder / "findings.json") == found
    ood = found.tables[0]
    assert [row.label for row in ood.rows] == [
        "MCP (one network)", "Gaussian perturbation", "MC dropout", "Deep ensemble", "TRADI", "SWAG",
    ]  # fmt: skip
    assert all(0 <= cell.value <= 100 for row in ood.rows for cell in row.cells)
    assert all(not cell.published for row in ood.rows for cell in row.cells)  # other data: nothing to compare
    assert all(base64.b64decode(shot.png).startswith(b"\x89PNG") for shot in found.shots)
    assert len(found.shots) == 2 * (2 + 3 + 2)
    assert not found.claims


def test_a_stopped_study_goes_on_with_what_is_there(done, monkeypatch):
    folder, found = done
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_, **__: pytest.fail("a network was trained again"))
    again = study("tradi-camvid")(folder, scale="smoke", seed=0, say=lambda _: None)
    assert [t.rows for t in again.tables] == [t.rows for t in found.tables]


def test_figures_are_those_of_all_pixels(toy: Path, generator):
    scenes = open_camvid("test", root=toy, ood=OOD)
    weights = torch.randn(8, 3, generator=generator) * 4

    def answer(inputs):
        return torch.einsum("nchw,kc->nkhw", inputs, weights)

    found = measure(answer, scenes)
    images, labels = scenes.take(range(len(scenes)))
    logits = answer(images).movedim(1, -1).reshape(-1, 8).double()
    truth = labels.flatten()
    kept = truth != 255
    score = (1 - logits.softmax(1).amax(1))[kept].numpy()
    ood = (truth[kept] >= 8).int().numpy()
    assert found["AUC"] == pytest.approx(100 * roc_auc_score(ood, score), abs=0.05)
    assert found["AUPR"] == pytest.approx(100 * average_precision_score(ood, score), abs=0.3)
    rejected, caught, _ = roc_curve(ood, score)
    assert found["FPR95"] == pytest.approx(100 * rejected[caught >= 0.95][0], abs=0.3)
    known = truth < 8
    right = (logits.argmax(1) == truth)[known].double().mean()
    assert found["accuracy"] == pytest.approx(100 * right.item())
    nll = torch.nn.functional.cross_entropy(logits[known], truth[known]).item()
    assert found["NLL"] == pytest.approx(nll, rel=1e-6)
    assert found["ood"] == pytest.approx(100 * ood.mean())
    # every answer on an OOD counts as wrong
    confidence = logits.softmax(1).amax(1)[kept]
    hit = ((logits.argmax(1) == truth) & known)[kept].double()
    cells = (confidence * 15).ceil().clamp(1, 15).long() - 1
    gaps = [abs((confidence - hit)[cells == k].sum().item()) for k in range(15)]
    assert found["ECE, ID + OOD"] == pytest.approx(sum(gaps) / kept.sum().item(), abs=1e-9)
    each = measure(answer, replace(scenes, batch=1), per_image=True)
    image_scores = []
    for k in range(len(scenes)):
        one, own = scenes.take([k])
        s = 1 - answer(one).softmax(1).amax(1).flatten()
        seen, strange = own.flatten() != 255, (own.flatten() >= 8)
        if strange[seen].any():
            image_scores.append(roc_auc_score(strange[seen].int(), s[seen]))
    assert each["AUC"] == pytest.approx(100 * sum(image_scores) / len(image_scores), abs=1e-3)


def test_the_large_sets_run_with_pspnet(toy: Path, tmp_path: Path):
    """As `full` does with StreetHazards and BDD-Anomaly: per-image figures, another network."""
    opened = {split: partial(open_camvid, split, root=toy, ood=OOD, size=(24, 32)) for split in ("train", "test")}
    size = Size(epochs=4, members=2, draws=2)
    network = partial(pspnet, backbone="tiny")
    recipe = Recipe("Toy", opened["train"], opened["test"], network, size, per_image=True)
    found, spent, shots = on_one_set(recipe, tmp_path, 0, lambda _: None)
    assert len(found) == 6
    assert spent["tracked network"] > 0
    assert shots


def test_full_says_what_is_missing(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("CAVEAT_DATA", str(tmp_path))
    chosen, missing = recipes(tmp_path, "full")
    assert [recipe.name for recipe in chosen] == ["CamVid"]
    assert [text.split(" ")[0] for text in missing] == ["StreetHazards", "BDD-Anomaly"]
    (tmp_path / "StreetHazards").mkdir()
    assert [recipe.name for recipe in recipes(tmp_path, "full")[0]] == ["CamVid", "StreetHazards"]
