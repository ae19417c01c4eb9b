"""The study of DeepG: from data to findings and again, and its claim where the answer is known."""

import pytest

from caveat import bounds
from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.deepg_mnist.findings import conclude


def test_from_data_to_findings_and_again(tmp_path, monkeypatch):
    found = study("deepg-mnist")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    found.save(tmp_path / "findings.json")
    assert Findings.load(tmp_path / "findings.json") == found
    assert not found.claims
    assert found.tables[0].rows[0].cells[2].published == "87.8"
    monkeypatch.setattr(bounds, "certify_transformed", lambda *_, **__: pytest.fail("certified again"))
    again = study("deepg-mnist")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    assert again.tables == found.tables


@pytest.mark.parametrize(
    ("interval", "seconds", "verdict"), [(90.0, 9.0, "confirmed"), (100.0, 9.0, "partly"), (90.0, 0.1, "partly")]
)
def test_the_verdict_follows_the_figures(interval, seconds, verdict):
    one = {"certified": 95.0, "falsified": 1.0, "open": 4.0, "seconds": 1.0}
    good = {"network": {"accuracy": 99.0}, "lines": one, "few": one, "interval": one | {"seconds": 9.0}}
    other = good | {"interval": one | {"certified": interval, "seconds": seconds}}
    assert conclude("small", 0, 20, 3, 1000, {"R(30)": good, "T(2,2)": other}).claims[0].verdict == verdict
