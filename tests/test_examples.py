"""Every example runs as it stands, in seconds, and says what its first lines promise."""

import json
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import shapes_unchecked

FOLDER = Path(__file__).parent.parent / "examples"
SAYS = {
    "audit_your_model": "best detector of 8-and-9",
    "certify": "verified",
    "choose_a_score": "On in-distribution data alone",
    "ensemble_uncertainty": "epistemic",
    "from_sklearn_outputs": "AUROC of",
    "guard_and_abstain": "refused: max_error",
    "huggingface": "scores of features are taken before 'model.classifier'",
    "monitor_drift": "Alarm: the scores are higher",
    "regression_intervals": "cqr",
    "train_ood_aware": "outlier exposure",
}
"""A part of what each prints."""


def test_every_example_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SAYS) | {"digits"}


@pytest.mark.parametrize("name", SAYS)
def test_it_runs_as_it_stands(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert f"python examples/{name}.py" in text
    with torch.random.fork_rng(), shapes_unchecked():  # as a user runs it
        if name == "huggingface" and find_spec("transformers") is None:
            with pytest.raises(SystemExit, match="0"):
                runpy.run_path(str(FOLDER / f"{name}.py"))
            assert "pip install 'caveat[hf]'" in capsys.readouterr().out
            return
        runpy.run_path(str(FOLDER / f"{name}.py"))
    assert SAYS[name] in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_keeps_its_outputs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    assert path.stat().st_size < 100_000
    namespace = {}
    with torch.random.fork_rng(), shapes_unchecked():
        for number, cell in enumerate(cells, start=1):
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
    kept = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in kept)
    assert not any(output["output_type"] == "error" or "/work/" in json.dumps(output) for output in kept)
