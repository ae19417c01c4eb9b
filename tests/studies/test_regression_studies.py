"""The studies of regression run from data to findings, and their figures are what they say."""

import base64
import math

import pytest
import torch

from caveat.data.tabular import Split
from caveat.records.findings import Findings
from caveat.scores.regression import Gaussians
from caveat.studies import study
from caveat.studies.kit.regression import DIAGONAL, ENSEMBLE, MC_DROPOUT, ONE, OURS, SWAG, Recipe
from caveat.studies.tradi_uci.findings import CQR, conclude
from caveat.studies.tradi_uci.run import one_split
from caveat.studies.two_uncertainties import figures
from caveat.studies.two_uncertainties import run as two_uncertainties
from caveat.studies.two_uncertainties.training import noisy_sine, two_classes

METHODS = [ONE, MC_DROPOUT, ENSEMBLE, OURS, DIAGONAL, SWAG]


@pytest.mark.parametrize("name", ["tradi-uci", "two-uncertainties"])
def test_from_data_to_findings_and_again(name: str, tmp_path, monkeypatch):
    found = study(name)(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    found.save(tmp_path / "findings.json")
    assert Findings.load(tmp_path / "findings.json") == found
    assert len((tmp_path / "findings.json").read_bytes()) < 700_000
    assert not found.claims
    assert all("recalled" not in cell.published for t in found.tables for row in t.rows for cell in row.cells)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_, **__: pytest.fail("a network was trained again"))
    again = study(name)(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    assert [t.rows for t in again.tables] == [t.rows for t in found.tables]


def test_figures_of_one_split_are_in_the_labels_units():
    """A linear law with noise of deviation 3 in units of 10: every method must estimate both, in those units."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 1, generator=generator)
    labels = 100 + 10 * inputs[:, 0] + 3 * torch.randn(500, generator=generator)
    centre, scale = float(labels[:400].mean()), float(labels[:400].std())
    split = Split(inputs[:400], (labels[:400] - centre) / scale, inputs[400:], labels[400:], centre, scale)
    found = one_split(split, Recipe(hidden=(10,), epochs=40, members=2, draws=5), 0)
    assert list(found) == [*METHODS, CQR]
    for method in (ONE, MC_DROPOUT, ENSEMBLE, SWAG):
        assert found[method]["RMSE"] == pytest.approx(3.0, rel=0.2)
        assert found[method]["NLL"] == pytest.approx(math.log(3) + 0.5 * math.log(2 * math.pi * math.e), abs=0.2)
        assert 75 <= found[method]["coverage"] <= 99
    assert 80 <= found[CQR]["coverage"] <= 100
    assert found[ONE]["epistemic"] == 0
    assert found[ENSEMBLE]["epistemic"] > 0


def test_the_recalled_figures_are_marked():
    values = {"RMSE": 1.0, "NLL": 1.0, "CRPS": 1.0, "epistemic": 1.0, "coverage": 90.0, "width": 1.0,
               "calibration": 1.0, "mixture NLL": 1.0, "interval score": 1.0}  # fmt: skip
    split = {method: dict(values) for method in (*METHODS, CQR)}
    found = conclude("small", 0, 5, 2, Recipe(), {"yacht": [split, split]})
    published = [cell.published for table in found.tables for row in table.rows for cell in row.cells]
    assert sum(text != "" for text in published) == 4
    assert all(text.startswith("recalled: ") for text in published if text)
    assert "were not checked against print" in found.notes[0]
    ours = [row.cells[METHODS.index(OURS)].published for table in found.tables for row in table.rows]
    assert set(ours) == {""}


def test_figures_of_a_perfect_posterior():
    """Two samples that have the true law, and differ by 0.2 outside of the data."""

    def answer(scaled: torch.Tensor) -> Gaussians:
        x = scaled[:, 0] * (math.pi / math.sqrt(3)) + math.pi
        apart = torch.where(x > 2 * math.pi, 0.2, 0.01)
        mean = torch.stack([x.sin() - apart, x.sin() + apart])
        return Gaussians(mean, (0.005 * x**2).expand(2, -1))

    found = two_uncertainties._judged(answer, 0)
    assert found["noise"] < 0.01
    assert found["inside"] == pytest.approx(0.01, rel=1e-3)
    assert found["ratio"] == pytest.approx(20, rel=1e-3)
    assert found["error"] < 1e-6
    assert found["coverage"] == pytest.approx(95, abs=1.5)
    assert found["identity"] < 1e-9


def test_the_noise_is_the_sources():
    x, y = noisy_sine(40_000, 1)
    assert 0 < x.min() < x.max() < 2 * math.pi
    late = x[:, 0] > 5
    deviation = ((y - x[:, 0].sin())[late] / x[late, 0]).std().item()
    assert deviation == pytest.approx(math.sqrt(0.005), rel=0.02)


def test_maps_of_the_plane_have_their_points(generator):
    points, labels = two_classes(0)

    def draws(at: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.stack([at[:, 0], -at[:, 0]], 1), torch.stack([at[:, 1], -at[:, 1]], 1)])

    shots = figures.maps("x", draws, points, labels)
    assert [shot.title for shot in shots] == ["aleatoric uncertainty, x", "epistemic uncertainty, x"]
    assert all(base64.b64decode(shot.png).startswith(b"\x89PNG") for shot in shots)
    places = two_uncertainties._places(draws)
    assert places["aleatoric overlap"] > places["aleatoric beside"]
    assert places["epistemic far"] > places["epistemic overlap"]
