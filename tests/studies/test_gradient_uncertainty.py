"""The study runs from pictures to findings, and goes on where it was stopped."""

import json

import pytest

from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.gradient_uncertainty.findings import conclude


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    said: list[str] = []
    return folder, study("gradient-uncertainty")(folder, scale="smoke", seed=0, say=said.append), said


def test_from_pictures_to_findings(done):
    folder, found, said = done
    assert said == [f"CNN 0: {step}" for step in ("training", "statistics of gradients", "meta classifiers")]
    found.save(folder / "findings.json")
    assert Findings.load(folder / "findings.json") == found
    assert len((folder / "findings.json").read_bytes()) < 500_000
    assert len(found.tables) == 9
    single = {row.label: row.cells for row in found.tables[0].rows}
    assert found.tables[0].columns == ["wrong", "blobs", "uniform", "normal"]
    assert single["entropy"][0].value > 70  # even here the least confident predictions are wrong more often
    # the gradient's norms follow the softmax
    assert abs(single["l1, head"][0].value - single["softmax"][0].value) < 10
    assert all(0 <= cell.value <= 100 for table in found.tables for row in table.rows for cell in row.cells)
    assert all(not cell.published for table in found.tables for row in table.rows for cell in row.cells)
    assert len(found.figures) == 9
    assert all(figure.spec["width"] == "container" for figure in found.figures)


def test_noise_in_the_fit_is_detected(done):
    _, found, _ = done
    auroc = {row.label: row.cells for row in found.tables[6].rows}
    uniform = found.tables[6].columns.index("uniform")
    assert auroc["NN; validation + noise"][uniform].value > 98
    assert auroc["NN; validation + noise"][uniform].value > auroc["NN; validation"][uniform].value


def test_a_second_run_reads_what_the_first_stored(done):
    folder, found, _ = done
    said: list[str] = []
    again = study("gradient-uncertainty")(folder, scale="smoke", seed=0, say=said.append)
    assert not said
    assert again.tables == found.tables


def test_claims_have_a_verdict_that_follows_the_figures(done):
    folder, *_ = done
    stored = json.loads((folder / "cnn-0" / "figures.json").read_text())
    renamed = json.loads(json.dumps(stored).replace('"blobs"', '"letters"'))
    size = dict.fromkeys(("nets", "train", "held_out", "test", "epochs", "ood"), 2)
    made = conclude([renamed, renamed], scale="small", seeds=[0, 1], size=size, names={"in-distribution": "mnist"})
    assert len(made.claims) == 10
    verdicts = {claim.claim: claim.verdict for claim in made.claims}
    lift = next(claim for claim in made.claims if "200 pictures of uniform noise" in claim.claim)
    gains = [renamed["meta"]["NN; validation + noise"][s]["aupr_out"] - renamed["meta"]["NN; validation"][s]["aupr_out"]
             for s in ("wrong", "letters", "uniform", "normal")]  # fmt: skip
    expected = "confirmed" if min(gains) > 0 else "partly" if max(gains) > 0 else "refuted"
    assert verdicts[lift.claim] == expected
    assert f"{gains[2]:+.1f}" in lift.found
    assert any("MNIST's 70,000 digits" in text for text in made.reduced)
