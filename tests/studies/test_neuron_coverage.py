"""The study of neuron coverage: from data to findings and again, and its statistics where the answer is known."""

from functools import partial

import pytest
import torch
from scipy import stats

from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.neuron_coverage import findings
from caveat.studies.neuron_coverage.findings import conclude, partial_correlation, with_interval
from caveat.studies.neuron_coverage.training import CHANGES, Pool, drawn


def test_from_data_to_findings_and_again(tmp_path, monkeypatch):
    found = study("neuron-coverage")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    found.save(tmp_path / "findings.json")
    assert Findings.load(tmp_path / "findings.json") == found
    assert not found.claims
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_, **__: pytest.fail("a network was trained again"))
    again = study("neuron-coverage")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    assert again.tables == found.tables


def table(kind, n=80, nets=3):
    """Figures of sets: the error goes with confidence, and with coverage only if `kind` says so."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(5, n, generator=generator)
    confidence, size, own = base[0], base[1], base[2]
    coverage = {"nothing": size + 0.3 * base[3], "confidence": confidence + 0.3 * base[3], "error": own}[kind]
    error = -confidence + own
    rows = [
        {"error": float(error[k]), "OOD share": float(base[4][k]), "size": float(size[k]),
         "confidence": float(confidence[k]), "KMNC": float(coverage[k])}
        for k in range(n)
    ]  # fmt: skip
    return {f"net {number}": rows for number in range(nets)}


def test_partial_correlation_is_that_of_the_rests():
    generator = torch.Generator().manual_seed(1)
    x, y, z = torch.randn(3, 40, generator=generator)
    y = y + z
    assert partial_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    one, two, three = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    by_hand = (one - two * three) / ((1 - two**2) * (1 - three**2)) ** 0.5
    assert partial_correlation(x, y, [z]) == pytest.approx(by_hand)
    assert partial_correlation(torch.ones(9), torch.arange(9.0)) == 0.0


@pytest.mark.parametrize(
    ("kind", "verdict"), [("nothing", "refuted"), ("confidence", "refuted"), ("error", "confirmed")]
)
def test_the_verdict_is_the_truth_where_it_is_known(kind, verdict, monkeypatch):
    monkeypatch.setattr(findings, "REPLICAS", 200)
    monkeypatch.setattr(findings, "with_interval", partial(with_interval, replicas=200))
    found = conclude("small", 0, 80, (50,), table(kind))
    assert found.claims[0].verdict == verdict
    assert found.claims[1].verdict == "refuted"  # the OOD share goes with nothing
    if kind == "confidence":  # it goes with the error, but no further than confidence does
        value, _, high = with_interval("KMNC", "error", table(kind), (), replicas=200)
        assert (value < -0.4, high < 0) == (True, True)


def test_sets_are_what_they_say(generator):
    pool = Pool(torch.rand(50, 1, 8, 8), torch.arange(50) % 10, {"ood": torch.full((30, 1, 8, 8), 2.0)})
    for number in range(20):
        one = drawn(pool, (40,), number, seed=3)
        strange = (one.inputs == 2).flatten(1).all(dim=1)
        assert float(strange.double().mean()) == pytest.approx(one.ood_share)
        assert len(one.labels) + int(strange.sum()) == len(one.inputs) == 40
        assert one.change in CHANGES
    again = drawn(pool, (40,), 19, seed=3)
    assert torch.equal(again.inputs, one.inputs)
    for change in CHANGES.values():
        torch.testing.assert_close(
            change(pool.inputs, 0.0, generator)[:, :, 2:], pool.inputs[:, :, 2:], atol=1.0, rtol=0
        )
