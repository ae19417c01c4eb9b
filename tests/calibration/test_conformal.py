"""Conformal sets: quantiles by hand, the theorem by enumeration, coverage over random splits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import shapes_unchecked

from caveat.calibration._rank import conformal_quantile
from caveat.calibration.conformal import (
    aps,
    class_conditional,
    coverage,
    coverage_by_class,
    coverage_by_size,
    lac,
    raps,
    sizes,
)
from caveat.errors import DataError, OptionError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
KINDS = pytest.mark.parametrize("fit", [lac, aps, raps, class_conditional])
MARGINAL = pytest.mark.parametrize("fit", [lac, aps, raps])


def network(n: int, c: int = 5, seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64)
    return logits * scale, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize(
    ("n", "error", "k"),
    [
        (9, 0.1, 9),
        (8, 0.1, None),
        (99, 0.1, 90),
        (100, 0.1, 91),
        (1, 0.5, 1),
        (1, 0.49, None),
        (9, 0.7, 3),
        (3, 0.99, 1),
    ],
)
def test_quantile_by_hand(n: int, error: float, k: int | None) -> None:
    # ⌈(n + 1)(1 - error)⌉: ⌈9.0⌉, ⌈8.1⌉ of 8, ⌈90⌉, ⌈90.9⌉, ⌈1⌉, ⌈1.02⌉ of 1, ⌈3⌉, ⌈0.04⌉. In floating point
    # 10 * (1 - 0.7) is 3.0000000000000004 and would give the 4th.
    scores = torch.arange(1, n + 1).double().flip(0)
    assert conformal_quantile(scores, error).item() == (math.inf if k is None else k)


P = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 3])


@pytest.mark.parametrize(
    ("error", "of_lac", "of_aps", "of_raps"),
    [
        # 5th of the 9 scores, those of label 1: 1 - 0.3, 0.5 above it, and a penalty of 0.1 · (2 - 1).
        (0.5, 0.7, 0.5, 0.6),
        # 8th, of label 2: 1 - 0.15, 0.8 above it, and a penalty of 0.1 · (3 - 1).
        (0.2, 0.85, 0.8, 1.0),
    ],
)
def test_scores_by_hand(error: float, of_lac: float, of_aps: float, of_raps: float) -> None:
    logits = P.log().repeat(9, 1)
    assert lac(logits, LABELS, error=error).quantile.item() == pytest.approx(of_lac, abs=1e-12)
    assert aps(logits, LABELS, error=error).quantile.item() == pytest.approx(of_aps, abs=1e-12)
    assert raps(logits, LABELS, error=error, penalty=0.1, rank=1).quantile.item() == pytest.approx(of_raps, abs=1e-12)


def test_sets_by_hand() -> None:
    # Quantiles as above: 0.85 (p ≥ 0.15), 0.8 and 1.0.
    logits = P.log().repeat(9, 1)
    asked = torch.tensor([[0.3, 0.25, 0.22, 0.23], [0.1, 0.7, 0.14, 0.06], [0.21, 0.0001, 0.7898, 0.0001]]).double()
    expected = {
        lac: [[1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]],
        # The sum before the class is at most 0.8: 0, 0.3, 0.55, 0.78; 0, 0.7 (0.84); 0, 0.7898 (0.9998).
        aps: [[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 0]],
        # At most 1.0 with 0.1 a rank: 0, 0.4, 0.75 (1.08); 0, 0.8 (1.04); 0, 0.8898 (1.1998).
        raps: [[1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]],
    }
    for fit, sets in expected.items():
        options = {"penalty": 0.1, "rank": 1} if fit is raps else {}
        got = fit(logits, LABELS, error=0.2, **options)(asked.log())
        assert got.int().tolist() == sets, fit.__name__
    # The quantile itself is inside, for the classes of the samples it was taken from.
    assert lac(logits, LABELS, error=0.5)(logits[:1]).int().tolist() == [[1, 1, 0, 0]]
    assert aps(logits, LABELS, error=0.5)(logits[:1]).int().tolist() == [[1, 1, 0, 0]]
    nothing_fits = torch.tensor([[0.26, 0.25, 0.25, 0.24]]).log()
    assert lac(logits, LABELS, error=0.5)(nothing_fits).sum() == 0  # p ≥ 0.3


@MARGINAL
@pytest.mark.parametrize("error", [0.1, 0.2, 0.3, 0.45, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("n", [1, 4, 7])
def test_the_theorem_by_enumeration(fit, error: float, n: int) -> None:
    # Any of n + 1 exchangeable samples is as likely the new one; the truth is then in its set in ⌈(n + 1)(1 - error)⌉
    # of n + 1 cases exactly, if no two scores are equal (here: the truth is never the first class).
    logits, _ = network(n + 1, c=6)
    labels = logits.argsort(dim=1, descending=True)[:, 2]
    inside = 0
    for new in range(n + 1):
        others = torch.arange(n + 1) != new
        inside += int(fit(logits[others], labels[others], error=error)(logits[new : new + 1])[0, labels[new]])
    assert inside == min(n + 1, math.ceil(round((n + 1) * (1 - error), 9)))


@pytest.mark.parametrize("randomised", [False, True])
@pytest.mark.parametrize("fit", [aps, raps])
@PROPERTY
@given(seed=st.integers(0, 1000), error=st.sampled_from([0.05, 0.1, 0.3]), scale=st.sampled_from([0.3, 1.0, 4.0]))
def test_adaptive_sets_end_where_the_quantile_is_crossed(fit, randomised, seed, error, scale) -> None:
    logits, labels = network(60, seed=seed, scale=scale)
    generator = torch.Generator().manual_seed(seed)
    predict = fit(logits, labels, error=error, randomised=randomised, generator=generator)
    probs = logits.softmax(1)
    sets = predict(logits, generator=generator)
    inside = (probs * sets).sum(1)
    last = probs.masked_fill(~sets, torch.inf).amin(1)
    if not randomised:
        assert (sizes(sets) >= 1).all()
    count = sizes(sets).double()
    cost = predict.penalty * (count - predict.rank).clamp_min(0)
    next_cost = predict.penalty * (count + 1 - predict.rank).clamp_min(0)
    some, most = count > 0, count < 5
    # What is above the last class of the set, with its cost, is below the quantile; of the next class it is not (with
    # randomness, up to the part of it that was drawn).
    assert (inside - last + cost <= predict.quantile + 1e-12)[some].all()
    after = probs.masked_fill(sets, -torch.inf).amax(1) * randomised
    assert (inside + next_cost + after > predict.quantile - 1e-12)[most].all()


@pytest.mark.parametrize(
    ("fit", "options"), [(lac, {}), (aps, {"randomised": True}), (raps, {"randomised": True}), (aps, {})]
)
def test_coverage_over_random_splits(fit, options) -> None:
    # An overconfident network, n = 60 to fit on: ⌈61 · 0.8⌉ / 61 = 49 / 61 are covered on average over splits. Coverage
    # of one split is Beta(49, 12) distributed, deviation 0.05; the mean of 400 is within 4 · 0.05 / √400 = 0.01.
    logits, labels = network(3000, scale=3.0)
    generator = torch.Generator().manual_seed(1)
    drawn = {"generator": generator} if options else {}
    total = torch.tensor(0.0).double()
    for _ in range(400):
        order = torch.randperm(3000, generator=generator)
        part, rest = order[:60], order[60:]
        predict = fit(logits[part], labels[part], error=0.2, **options, **drawn)
        total += coverage(predict(logits[rest], **drawn), labels[rest]) / 400
    assert abs(total.item() - 49 / 61) < 0.01


def test_without_randomness_a_network_that_is_right_enough_gives_one_class() -> None:
    logits, labels = network(2000, scale=1.0)
    logits[torch.arange(2000), labels] += 8  # right in more than 90 %
    predict = aps(logits, labels, error=0.1)
    assert predict.quantile.item() == 0
    assert (sizes(predict(logits)) == 1).all()
    generator = torch.Generator().manual_seed(0)
    randomised = aps(logits, labels, error=0.1, randomised=True, generator=generator)(logits, generator=generator)
    assert abs(coverage(randomised, labels).item() - 0.9) < 0.03  # exactly what was asked for, by empty sets
    assert (sizes(randomised) == 0).any()


def test_the_penalty_cuts_the_tail() -> None:
    logits, labels = network(2000, c=50, scale=0.7)
    plain = aps(logits, labels, error=0.1)
    torch.testing.assert_close(raps(logits, labels, penalty=0.0, rank=3).quantile, plain.quantile)
    penalised = raps(logits, labels, penalty=0.1, rank=3)(logits)
    one_size = raps(logits, labels, penalty=100.0, rank=0)(logits)
    assert sizes(penalised).max() < sizes(plain(logits)).max()
    assert sizes(one_size).max() - sizes(one_size).min() <= 1  # ranks decide, probabilities only within one
    for sets in (penalised, one_size):
        assert coverage(sets, labels) >= 0.9


def test_the_generator_decides() -> None:
    logits, labels = network(200)

    def sets(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return aps(logits, labels, randomised=True, generator=generator)(logits, generator=generator)

    assert torch.equal(sets(0), sets(0))
    assert not torch.equal(sets(0), sets(1))
    with pytest.raises(
        OptionError, match=r"generator: expected a torch.Generator, as the sets are randomised, got None"
    ):
        aps(logits, labels, randomised=True)
    with pytest.raises(OptionError, match="generator: expected"):
        aps(logits, labels, randomised=True, generator=torch.Generator())(logits)


def test_summaries_by_hand() -> None:
    sets = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]).bool()
    labels = torch.tensor([0, 0, 1, 1])
    nan = math.nan
    assert sizes(sets).tolist() == [1, 2, 0, 2]
    assert coverage(sets, labels).item() == 0.75
    torch.testing.assert_close(coverage_by_class(sets, labels), torch.tensor([1, 0.5, nan]).double(), equal_nan=True)
    torch.testing.assert_close(coverage_by_size(sets, labels), torch.tensor([0, 1, 1, nan]).double(), equal_nan=True)


def test_mistakes_are_refused() -> None:
    logits, labels = network(20)
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(OptionError, match="penalty: expected a number of at least 0, got"):
            raps(logits, labels, penalty=bad)
    with pytest.raises(OptionError, match="rank: expected at least 0, got -1"):
        raps(logits, labels, rank=-1)
    sets = lac(logits, labels)(logits)
    with shapes_unchecked(), pytest.raises(DataError, match="labels: expected one for each of the sets"):
        coverage(sets, labels[:3])
    with pytest.raises(DataError, match="of which at least one, got 0 for 0"):
        coverage(sets[:0], labels[:0])
    with pytest.raises(DataError, match="labels: expected 0 to 4, got 0 to 5"):
        coverage_by_class(sets, torch.arange(20) % 6)


def test_classes_of_equal_probability_are_ranked_by_their_number():
    # s is 0, 1/4, 2/4, 3/4 for the four classes, not 0 for all: every sample's own class is among the first two.
    even = torch.zeros(9, 4, dtype=torch.float64)
    g = aps(even, torch.tensor([0, 1] * 4 + [0]), error=0.2)
    assert g.quantile.item() == 0.25
    assert g(even[:1]).tolist() == [[True, True, False, False]]


def test_every_class_is_covered_as_often_as_promised() -> None:
    """Of 300 trials with a rare, hard class: least ambiguous sets leave it out, class-conditional ones do not."""
    generator = torch.Generator().manual_seed(5)
    share, covered = torch.tensor([0.6, 0.3, 0.1]), {lac: torch.zeros(3), class_conditional: torch.zeros(3)}
    for _ in range(300):
        labels = torch.multinomial(share, 800, replacement=True, generator=generator)
        logits = torch.randn(800, 3, generator=generator)
        logits[torch.arange(800), labels] += torch.tensor([4.0, 3.0, 0.5])[labels]
        for fit, total in covered.items():
            sets = fit(logits[:400], labels[:400], error=0.1)(logits[400:])
            total += coverage_by_class(sets, labels[400:]).float() / 300
    assert covered[class_conditional].min() > 0.895  # 0.9 and three standard errors of the mean
    assert covered[lac].min() < 0.6
