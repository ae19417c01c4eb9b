"""Smoke runs of TRADI and ACET studies from the command line; a second run trains nothing."""

import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from caveat.cli.main import app
from caveat.errors import OptionError
from caveat.records.findings import Findings
from caveat.studies import STUDIES, Study, study
from caveat.studies.kit import common


def run(name: str, folder: Path) -> Findings:
    result = CliRunner().invoke(app, ["study", name, "--scale", "smoke", "-o", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    assert (folder / "report.html").stat().st_size > 10_000
    return Findings.load(folder / "findings.json")


@pytest.mark.parametrize("name", ["tradi-mnist", "tradi-cifar"])
def test_posteriors_are_compared_and_a_second_run_trains_nothing(name: str, tmp_path: Path) -> None:
    first = run(name, tmp_path)
    methods = [row.label for row in first.tables[0].rows]
    assert methods[0] == "MCP (one network)"
    assert {"Gaussian perturbation", "MC dropout", "Deep ensemble", "TRADI", "SWAG"} <= set(methods)
    values = [
        cell.value for table in first.tables for row in table.rows for cell in row.cells if cell.value is not None
    ]
    assert all(math.isfinite(value) for value in values)
    if name == "tradi-cifar":
        return
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("member-*.safetensors")}
    again = run(name, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("member-*.safetensors")} == times
    for one, two in zip(first.tables[0].rows, again.tables[0].rows, strict=True):
        assert [c.value for c in one.cells[:3]] == [c.value for c in two.cells[:3]]


def test_confidence_far_away(tmp_path: Path) -> None:
    found = run("relu-overconfidence", tmp_path)
    assert [row.label for row in found.tables[0].rows] == ["digits, plain", "digits, CEDA", "digits, ACET"]
    assert [shot.title for shot in found.shots] == ["Two moons, Plain", "Two moons, ACET"]
    for row in found.tables[0].rows:
        grid, first, stays = (math.inf if c.text == "inf" else c.value for c in row.cells[1:4])
        assert first <= stays
        assert first <= grid * 1.3  # other samples of noise
    assert {"blobs", "noise", "adversarial noise"} <= {row.label for row in found.tables[1].rows}


def test_a_page_is_made_again_from_findings(tmp_path: Path) -> None:
    made = common.findings(study="s", title="Once more", source="x", scale="smoke", seeds=[0], settings={})
    made.save(tmp_path / "findings.json")
    page = tmp_path / "again.html"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "findings.json"), "-o", str(page)])
    assert result.exit_code == 0, result.output
    assert "Once more" in page.read_text(encoding="utf-8")


def test_the_table_of_studies() -> None:
    for name in STUDIES:
        assert isinstance(study(name), Study), name
    with pytest.raises(OptionError, match="did you mean 'tradi-mnist'"):
        CliRunner().invoke(app, ["study", "tradi-mnits"], catch_exceptions=False)
    with pytest.raises(OptionError, match="expected one of smoke, small, full"):
        CliRunner().invoke(app, ["study", "tradi-mnist", "--scale", "huge"], catch_exceptions=False)


def test_calibration_error_with_ood_counts_every_prediction_on_ood_as_wrong() -> None:
    inside = torch.tensor([[9.0, -9.0], [9.0, -9.0]])
    ood = torch.tensor([[9.0, -9.0], [-9.0, 9.0]])
    # four confident predictions; the in-distribution half is right, the others cannot be
    assert common.ece_with_ood(inside, torch.tensor([0, 0]), ood) == pytest.approx(0.5, abs=1e-6)


def test_figures_of_merit_have_both_polarities() -> None:
    inside = torch.arange(100.0)
    ood = torch.arange(100.0) + 50
    found = common.detection(inside, ood)
    assert found["fpr_in"] == pytest.approx(45.0)  # 95 % of the in-distribution are at or below 94
    assert found["fpr_out"] == pytest.approx(45.0)  # 95 % of the OOD inputs are at or above 55
    assert found["auroc"] == pytest.approx(87.5, abs=0.5)
