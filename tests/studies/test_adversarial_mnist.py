"""The study of adversarial examples runs from pictures to findings, and goes on where it was stopped."""

import base64
import io
import math

import pytest
import torch
from PIL import Image

from caveat.records.findings import Findings
from caveat.studies import study
from caveat.studies.adversarial_mnist import findings as adversarial_found
from caveat.studies.adversarial_mnist import run as adversarial_mnist
from caveat.studies.adversarial_mnist.figures import strip
from caveat.studies.adversarial_mnist.training import SIZES


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    said: list[str] = []
    return folder, study("adversarial-mnist")(folder, scale="smoke", seed=0, say=said.append), said


def test_from_pictures_to_findings(done):
    folder, found, said = done
    assert said[:2] == ["plain: training", "plain: attacking"]
    found.save(folder / "findings.json")
    assert Findings.load(folder / "findings.json") == found
    accuracies = {row.label: [cell.value for cell in row.cells] for row in found.tables[0].rows}
    for clean, _, fgsm, pgd, _, near, far, few_near, few_far in accuracies.values():
        assert clean >= fgsm >= pgd  # both attacks give back what they cannot harm
        assert clean >= near >= far  # no larger ball is proved where a smaller one is not
        assert few_near >= few_far
    assert min(accuracies[name][0] for name in ("plain", "plain, other seed", "MLP")) > 60  # by chance: 10
    assert accuracies["plain"][3] < accuracies["plain"][0] - 20
    assert all(not cell.published for row in found.tables[0].rows for cell in row.cells)  # digits are not MNIST
    sparse = {row.label: [cell.value for cell in row.cells] for row in found.tables[1].rows}
    assert sparse["plain"][0] > 90
    assert sparse["plain"][1] < sparse["plain"][6]  # fewer pixels than PGD
    assert len(found.tables) == 4
    assert [table.columns[0] for table in found.tables[2:]] == ["on plain", "on plain"]


def test_a_network_is_fooled_most_by_its_own_examples(done):
    _, found, _ = done
    for row in found.tables[3].rows[:3]:
        own = int([label.label for label in found.tables[3].rows].index(row.label))
        assert row.cells[own].value == max(cell.value for cell in row.cells)


def test_a_second_run_reads_what_the_first_stored(done, monkeypatch):
    folder, found, _ = done
    for name in ("_judge", "_few_pixels", "_certified", "_crossed"):
        monkeypatch.setattr(adversarial_mnist, name, lambda *_: pytest.fail("measured again"))
    again = study("adversarial-mnist")(folder, scale="smoke", seed=0, say=lambda _: None)
    assert again.tables == found.tables


def figures(clean, fgsm, pgd, verified=None):
    clean, fgsm, pgd = float(clean), float(fgsm), float(pgd)
    return {
        "clean": clean, "noise": clean, "fgsm": fgsm, "pgd": pgd, "pgd pixels": 500.0, "seconds": 1.0,
        "curve": [[0.0, clean, clean]], "search": {"reached": 100.0, "pixels": 20.0, "l1": 9.0},
        "fixed": {"reached": 0.0, "pixels": math.nan, "l1": math.nan},
        "strongest": pgd, "notes": [], "interval": [0.0, 0.0] if verified is None else [96.0, verified],
        "deeppoly": [pgd / 2, 0.0],
    }  # fmt: skip


@pytest.mark.parametrize("like", [True, False])
def test_claims_have_a_verdict_that_follows_the_figures(like):
    found = {
        "plain": figures(99, 10, 0), "plain, other seed": figures(99, 10, 0), "MLP": figures(98, 5, 0),
        "FGSM-trained": figures(98, 95, 40), "PGD-trained": figures(98, 95, 91), "TRADES": figures(97, 95, 89),
        "IBP": figures(96, 92, 91, 89.0 if like else 70.0),
        "IBP, smaller radius": figures(97, 50, 40, 5.0), "CROWN-IBP": figures(96, 92, 91, 60.0),
    }  # fmt: skip
    matrix = [[50.0] * 9 for _ in range(9)]
    matrix[0][1], matrix[1][0] = (60.0, 60.0) if like else (40.0, 40.0)
    size = SIZES["small"]
    made = adversarial_found.conclude("small", 0, size, found, {"0.1": matrix, "0.3": matrix}, [], pixels=784)
    assert [claim.verdict for claim in made.claims] == [
        "confirmed", "confirmed", "confirmed" if like else "refuted", "confirmed", "refuted", "partly",
        "confirmed" if like else "partly", "confirmed",
    ]  # fmt: skip
    assert made.tables[0].rows[4].cells[1].value == 98
    assert made.tables[0].rows[4].cells[2].published == "96.4"
    assert made.tables[1].rows[0].cells[4].text == "-"


def test_wrong_predictions_have_a_coloured_frame():
    rows = [torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)]
    image = Image.open(io.BytesIO(base64.b64decode(strip(rows, [torch.tensor([3, 4])] * 2, torch.tensor([3, 5])))))
    frame = image.convert("RGB")
    assert frame.size == (130, 130)
    right, wrong = frame.getpixel((0, 0)), frame.getpixel((65, 0))
    assert len(set(right)) == 1
    assert wrong[0] > wrong[1] > wrong[2]
    assert frame.getpixel((30, 30))[0] < 10
    assert frame.getpixel((30, 95))[0] > 245
