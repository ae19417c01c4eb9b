"""The promise of a threshold: exact order statistics, ties, rounding, and what is accepted beside what is wrong."""

import pytest
import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.guard import Guard
from caveat.guard.threshold import ROUNDING, promise


def none_wrong(scores: Tensor) -> Tensor:
    return torch.zeros(len(scores), dtype=torch.bool)


@pytest.mark.parametrize("size", [1e-6, 1.0, -1e6])
def test_the_threshold_is_an_order_statistic_and_its_rounding(size: float) -> None:
    scores = size * torch.linspace(1, 2, 99, dtype=torch.float64)
    made = promise(scores, none_wrong(scores), keep=0.8)  # the 80th of 99
    kth = float(scores.sort().values[79])
    assert 0 < made.threshold - kth <= 2 * ROUNDING * abs(size)
    assert made.kept == 80 / 99  # no other score is so near


def test_scores_that_tie_with_the_threshold_are_accepted_whatever_the_last_digit() -> None:
    scores = torch.arange(8.0).double().repeat(50) / 7
    made = promise(scores, none_wrong(scores), keep=0.85)
    assert made.kept == 7 / 8
    for last in (-1e-6, 0.0, 1e-6):
        assert ((scores * (1 + last) <= made.threshold).double().mean()) == made.kept


def test_the_error_among_the_accepted_counts_those_that_tie() -> None:
    # 100 scores: 0 for 60 right answers, 1 for 30 right and 10 wrong ones. A threshold at 1 accepts all, so the error
    # is 0.1; at 0 it is 0.
    scores = torch.cat((torch.zeros(60), torch.ones(40))).double()
    wrong = torch.arange(100) >= 90
    assert promise(scores, wrong, keep=0.9).error == 0.1
    assert promise(scores, wrong, keep=0.9).kept == 1
    strict = promise(scores, wrong, keep=0.5)
    assert (strict.kept, strict.error) == (0.6, 0.0)


def test_max_error_does_not_pass_over_wrong_answers_that_tie_with_the_threshold() -> None:
    # 300 right answers score 0, then 200 at 1 of which a quarter are wrong: 10 % of all 500. Without those that tie,
    # every threshold at 1 would seem to accept right answers alone.
    scores = torch.cat((torch.zeros(300), torch.ones(200))).double()
    wrong = torch.arange(500) >= 450
    made = promise(scores, wrong, max_error=0.05)
    assert made.threshold < 0.5
    assert (made.kept, made.error) == (0.6, 0.0)
    loose = promise(scores, wrong, max_error=0.15)
    assert loose.threshold >= 1
    assert (loose.kept, loose.error) == (1.0, 0.1)
    with pytest.raises(OptionError, match=r"max_error: 0\.05 can't be promised"):
        promise(scores[300:], wrong[300:], max_error=0.05)


def test_a_promise_about_nothing_accepted_has_no_error() -> None:
    made = promise(torch.arange(10.0).double(), torch.arange(10) < 0, keep=0.5)
    assert (made.level, made.kind, made.error) == (0.5, "keep", 0.0)


@pytest.mark.parametrize("score", ["msp", "energy", "knn", "mahalanobis", "vim"])
def test_no_verdict_depends_on_the_batch(score: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    eight = torch.rand(8, 16, generator=generator)
    labels = torch.arange(8) % 3
    train = [(torch.rand(512, 16, generator=generator), torch.arange(512) % 3)]
    held = [(eight.repeat(64, 1), labels.repeat(64))]  # 8 distinct inputs: the threshold is the score of one of them
    guard = Guard.fit(model, held, train=train, score=score, keep=0.85)
    whole = guard(eight.repeat(32, 1)).accepted
    assert 0.85 <= whole.double().mean() <= 1
    for size in (1, 7):
        parts = torch.cat([guard(part).accepted for part in eight.repeat(32, 1).split(size)])
        assert torch.equal(parts, whole)
