"""The study of the CIFAR-10 ResNets: from data to findings and again, the networks, and claims for known figures."""

import pytest
import torch

from caveat.data.named import under_root
from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.cifar10_resnets import run
from caveat.studies.cifar10_resnets.findings import ENSEMBLE, conclude
from caveat.studies.cifar10_resnets.training import build, trained
from caveat.studies.kit.published import published

OOD = ["CIFAR-100", "textures"]


def test_from_data_to_findings_and_again(tmp_path, monkeypatch):
    found = study("cifar10-resnets")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    found.save(tmp_path / "findings.json")
    assert Findings.load(tmp_path / "findings.json") == found
    *alone, together = (row.cells[1].value for row in found.tables[0].rows)
    assert len(alone) == 2
    assert together <= sum(alone) / 2, "by Jensen's inequality"
    assert len(found.tables[2].rows) > 20
    assert {row.label for row in found.tables[2].rows} >= {"msp", "knn", "vim"}
    monkeypatch.setattr(run, "observe", lambda *_, **__: pytest.fail("observed again"))
    assert study("cifar10-resnets")(tmp_path, scale="smoke", seed=0, say=lambda _: None).tables == found.tables


def test_a_deeper_network_has_more_blocks():
    parts = {depth: sum(isinstance(part, torch.nn.Conv2d) for part in build(depth).modules()) for depth in (20, 56)}
    assert parts == {20: 19, 56: 55}  # and the head
    assert build(20)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.skipif(under_root("cifar10_resnets") is None, reason="CAVEAT_DATA has no cifar10_resnets")
def test_the_authors_weights_are_in_the_network():
    fresh, theirs = build(20), trained(20)
    assert not theirs.training
    assert all((new != old).any() for new, old in zip(theirs.parameters(), fresh.parameters(), strict=True))


def figures(accuracy, nll, ece, auroc):
    return {"accuracy": accuracy, "NLL": nll, "ECE": ece} | {
        f"{score}, {title}": auroc for score in ("msp", "entropy", "energy") for title in OOD
    }


def test_the_verdicts_follow_the_figures():
    printed = published("cifar10_resnets").tables["scores"]
    same = {score: {OOD[0]: float(near), OOD[1]: float(far)} for score, (near, far) in printed.rows.items()}
    other = {score: {title: -value for title, value in one.items()} for score, one in same.items()}
    judged = {"a": figures(90, 0.3, 2, 88), "b": figures(91, 0.4, 3, 87), ENSEMBLE: figures(92, 0.2, 1, 89)}
    claims = conclude("small", 0, OOD, {"test": 10}, judged, {"a": same, "b": other}).claims
    assert [claim.verdict for claim in claims] == ["confirmed", "confirmed", "refuted"]
    assert "1.00" in claims[1].found
    worse = judged | {ENSEMBLE: figures(90.5, 0.2, 1, 89)}
    assert conclude("small", 0, OOD, {"test": 10}, worse, {"a": same}).claims[0].verdict == "partly"
    worst = judged | {ENSEMBLE: figures(89, 0.5, 4, 80)}
    assert conclude("small", 0, OOD, {"test": 10}, worst, {"a": same}).claims[0].verdict == "refuted"
