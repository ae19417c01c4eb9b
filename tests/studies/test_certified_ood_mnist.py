"""The study of certified OOD detection: from pictures to findings and again, and verdicts that follow the figures."""

import math

import pytest
import torch
from torch import nn

from caveat.attacks import LOSSES, Ball, from_inputs, pgd, uniform
from caveat.attacks.noise import drawn
from caveat.errors import CaveatWarning
from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.certified_ood_mnist.findings import conclude
from caveat.studies.certified_ood_mnist.run import towards
from caveat.studies.certified_ood_mnist.training import SIZES


def test_from_pictures_to_findings_and_again(tmp_path, monkeypatch):
    found = study("certified-ood-mnist")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    found.save(tmp_path / "findings.json")
    assert Findings.load(tmp_path / "findings.json") == found
    assert not found.claims
    assert [table.title for table in found.tables][1:] == ["OOD detection: letters", "OOD detection: noise"]
    for table in found.tables[1:]:
        for row in table.rows:
            clean, attacked, intervals, lines = (cell.value for cell in row.cells)
            assert clean >= attacked >= max(intervals, lines)  # a guarantee is what no attack passes
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_, **__: pytest.fail("a network was trained again"))
    monkeypatch.setattr("caveat.attacks.pgd", lambda *_, **__: pytest.fail("measured again"))
    again = study("certified-ood-mnist")(tmp_path, scale="smoke", seed=0, say=lambda _: None)
    assert again.tables == found.tables


def test_attacks_begin_where_a_network_without_a_slope_at_its_outliers_has_one(generator):
    digits, ball = torch.zeros(5, 1, 1, 2), Ball(math.inf, 0.3)
    pictures = torch.full((4, 1, 1, 2), 0.8)
    noise = drawn(4, generator)
    near = towards(digits)(ball, pictures, noise, 0)
    torch.testing.assert_close(near, torch.full_like(near, 0.5))
    other = towards(digits)(ball, pictures, noise, 1)
    assert torch.equal(other, uniform(ball, pictures, noise, 1))
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))  # relu(1.1 - x - y)
    net.load_state_dict({
        "1.weight": -torch.ones(1, 2), "1.bias": torch.tensor([1.1]),
        "3.weight": torch.tensor([[9.0], [0.0]]), "3.bias": torch.zeros(2),
    })  # fmt: skip
    options = {"loss": LOSSES["confidence"], "steps": 3, "generator": generator}
    found = pgd(net.eval(), pictures, torch.zeros(4, dtype=torch.long), ball, start=towards(digits), **options)
    assert net(found).softmax(1).amax(1).min().item() > 0.7
    with pytest.warns(CaveatWarning, match="gradient is zero"):
        found = pgd(net, pictures, torch.zeros(4, dtype=torch.long), ball, start=from_inputs, **options)
    assert net(found).softmax(1).amax(1).max().item() == 0.5


def figures(accuracy, guaranteed, gain=0.0, broken=0):
    sets = {
        name: {"plain": 99.0, "attacked": 90.0, "IBP": guaranteed, "CROWN": min(100.0, guaranteed + gain),
               "broken": broken, "attacked pictures": 200, "curve": [[0.0, 99.0]]}
        for name in ("letters", "grey CIFAR-10", "noise")
    }  # fmt: skip
    return {"accuracy": accuracy, "ood": sets, "seconds": 1.0}


@pytest.mark.parametrize(
    ("good", "acet", "expected"),
    [
        (figures(98.7, 99.96), figures(99.4, 0.0), "confirmed confirmed confirmed confirmed refuted confirmed"),
        (figures(98.0, 60.0, gain=6.0), figures(99.4, 2.0), "partly partly partly partly confirmed confirmed"),
        (figures(90.0, 10.0, gain=1.0, broken=1), figures(99.4, 9.0), "refuted refuted refuted refuted partly refuted"),
    ],
)  # fmt: skip
def test_verdicts_follow_the_figures(good, acet, expected):
    plain = figures(99.4, 0.0)
    found = {"plain": plain, "outlier exposure": plain, "ACET": acet, "GOOD": good}
    made = conclude("small", 0, SIZES["small"], found)
    assert [claim.verdict for claim in made.claims] == expected.split()
    assert made.claims[-1].found.endswith(f"on {3 * good['ood']['noise']['broken']} of 2,400 pictures.")
    assert made.tables[0].rows[3].cells[0].published == "98.7"
    cifar = next(table for table in made.tables if "CIFAR" in table.title)
    assert [cell.published for cell in cifar.rows[2].cells] == ["100.0", "99.3", "0.0", ""]
