"""What `caveat guard fit` tells of a guard."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.cli.test_cli import AUDIT, run
from tests.cli.test_cli import place as a_place

from caveat.cli.guard.fit import show
from caveat.guard.stored import Operating

place = a_place


def test_the_share_accepted_is_told_with_the_samples_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    operating = Operating(kind="keep", level=0.95, kept=0.962, error=0.01, threshold=1.5, rounding=0)
    show(SimpleNamespace(score="msp", why="by name", calibration="temperature", operating=operating, classes=[]))
    words = " ".join(capsys.readouterr().out.split())
    assert "On the calibration samples that its threshold was set on, it accepts 96.2%" in words
    assert "held-out" not in words


def test_pictures_of_the_audit_are_kept_where_they_are_asked_for(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*AUDIT, "--score", "knn", capsys=capsys, monkeypatch=monkeypatch)[0] == 0
    fit = ("guard", "fit", "out", "-o", "guard", "--keep", "0.8")
    code, out, err = run(*fit, "--examples", "20", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, "was replaced" in out) == (0, False), err
    assert len(list(Path("guard").glob("examples-*"))) == 1
    code, out, _ = run(*fit, capsys=capsys, monkeypatch=monkeypatch)
    assert (code, "The guard that was in guard before was replaced." in out) == (0, True)
    assert not list(Path("guard").glob("examples-*"))
    there = np.load("known.npz")
    np.savez("known.npz", images=there["images"][::-1], labels=there["labels"])
    code, _, err = run(*fit, "--examples", "20", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, err.count("\n")) == (2, 1)
    assert "inputs read again are not those that were observed" in err


def test_a_better_calibration_and_too_few_scores_to_monitor_are_told(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*AUDIT, "--score", "knn", capsys=capsys, monkeypatch=monkeypatch)[0] == 0
    path = Path("out/record.json")
    record = json.loads(path.read_text())
    for one in record["calibrations"]:
        one["summary"]["nll"]["value"] = 0.1 if one["name"] == "none" else 0.2
    path.write_text(json.dumps(record))
    fit = ("guard", "fit", "out", "-o", "guard", "--keep", "0.8")
    words = " ".join(run(*fit, capsys=capsys, monkeypatch=monkeypatch)[1].split())
    assert "In the audit no calibration has a lower NLL (0.1, temperature 0.2): --calibration none uses it." in words
    words = " ".join(run(*fit, "--calibration", "none", capsys=capsys, monkeypatch=monkeypatch)[1].split())
    assert "lower NLL" not in words
    monkeypatch.setattr("caveat.guard.monitor.FEW", 10**6)
    assert "a monitor needs 1000000: fit it on more samples" in " ".join(
        run(*fit, capsys=capsys, monkeypatch=monkeypatch)[1].split()
    )


def test_a_damaged_record_leaves_no_guard_behind(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is advised was read only once the guard was written: refused, it was there all the same."""
    assert run(*AUDIT, "--score", "knn", capsys=capsys, monkeypatch=monkeypatch)[0] == 0
    record = Path("out/record.json")
    record.write_text(record.read_text()[:-20])
    code, _, err = run("guard", "fit", "out", "-o", "guard", "--keep", "0.8", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, err.count("\n"), Path("guard").exists()) == (2, 1, False)
