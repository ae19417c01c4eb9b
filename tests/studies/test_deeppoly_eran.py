"""The study of DeepPoly on ERAN's networks: from data to findings and again, and its claims for known figures."""

import pytest

from caveat import bounds
from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.deeppoly_eran.findings import conclude

GOOD = {
    "right": 960, "stood": 842, "broken": 0, "lost": 0, "verified": {"interval": 0, "deeppoly": 166},
    "milliseconds": {"interval": 1.0, "deeppoly": 9.0},
    "few": {"stood": 9, "deeppoly": 2, "alpha": 4, "branch": 6, "alpha_open": 5, "alpha_falsified": 1,
            "branch_open": 3, "branch_falsified": 1},
}  # fmt: skip


def test_from_data_to_findings_and_again(tmp_path, monkeypatch):
    found = study("deeppoly-eran")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    found.save(tmp_path / "findings.json")
    assert Findings.load(tmp_path / "findings.json") == found
    right, stood, lines, intervals, _ = (cell.value for cell in found.tables[0].rows[0].cells)
    assert 0 <= intervals <= lines <= stood <= right <= 20
    assert lines > 0, "a radius at which nothing is verified shows nothing"
    stood, lines, slopes, parts, falsified, left = (cell.value for cell in found.tables[1].rows[0].cells)
    assert lines <= slopes <= parts <= stood
    assert parts + falsified + left == 4
    monkeypatch.setattr(bounds, "certify", lambda *_, **__: pytest.fail("certified again"))
    again = study("deeppoly-eran")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    assert again.tables == found.tables


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({}, ["confirmed", "confirmed", "confirmed"]),
        ({"verified": {"interval": 0, "deeppoly": 159}}, ["refuted", "confirmed", "confirmed"]),
        ({"verified": {"interval": 0, "deeppoly": 169}}, ["refuted", "confirmed", "confirmed"]),
        ({"broken": 1}, ["confirmed", "refuted", "confirmed"]),
        ({"lost": 1}, ["confirmed", "confirmed", "refuted"]),
    ],
)
def test_the_verdicts_follow_the_figures(change, verdicts):
    assert [
        claim.verdict for claim in conclude("small", 0, 1000, 10, 20.0, {"6x100": GOOD | change}).claims
    ] == verdicts
