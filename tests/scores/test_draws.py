"""Scores from draws: the split of the uncertainty, golden numbers, agreement with direct formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caveat.scores import FROM_DRAWS, draws

LOGITS = torch.tensor([[[2.0, 0.0, -1.0]], [[0.0, 1.0, 0.0]], [[1.0, 1.0, 3.0]]], dtype=torch.float64)


def reference() -> dict[str, float]:
    """By the definitions, in plain Python."""
    probs = []
    for (row,) in LOGITS.tolist():
        total = sum(math.exp(v) for v in row)
        probs.append([math.exp(v) / total for v in row])
    mean = [sum(p[k] for p in probs) / 3 for k in range(3)]

    def entropy(p: list[float]) -> float:
        return -sum(v * math.log(v) for v in p)

    def kl(p: list[float], q: list[float]) -> float:
        return sum(v * math.log(v / w) for v, w in zip(p, q, strict=True))

    pairs = [kl(p, q) for p in probs for q in probs if p is not q]
    return {
        "predictive_entropy": entropy(mean),
        "expected_entropy": sum(map(entropy, probs)) / 3,
        "mutual_information": sum(kl(p, mean) for p in probs) / 3,
        "variation_ratio": 2 / 3,
        "draw_variance": sum(sum((p[k] - mean[k]) ** 2 for p in probs) / 3 for k in range(3)),
        "mean_msp": 1 - max(mean),
        "pairwise_kl": sum(pairs) / 6,
    }


@pytest.mark.parametrize("name", FROM_DRAWS)
def test_the_definition(name: str) -> None:
    assert FROM_DRAWS[name](LOGITS).item() == pytest.approx(reference()[name], rel=1e-12)


@given(st.integers(1, 6), st.integers(2, 5), st.floats(0, 30), st.integers(0, 1000))
def test_total_is_aleatoric_plus_epistemic(count: int, classes: int, size: float, seed: int) -> None:
    logits = size * torch.randn(count, 8, classes, generator=torch.Generator().manual_seed(seed))
    total, aleatoric = draws.predictive_entropy(logits), draws.expected_entropy(logits)
    epistemic = draws.mutual_information(logits)
    torch.testing.assert_close(total, aleatoric + epistemic, rtol=2e-6, atol=2e-6)
    assert (epistemic >= 0).all()
    assert (epistemic <= min(math.log(classes), math.log(count)) + 1e-6).all()


@given(st.integers(1, 7), st.floats(-1e4, 1e4), st.integers(0, 1000))
def test_draws_that_agree_carry_no_information(count: int, size: float, seed: int) -> None:
    one = size * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    same = one.expand(count, -1, -1)
    for name in ("mutual_information", "variation_ratio", "pairwise_kl"):
        assert (FROM_DRAWS[name](same) == 0).all(), name
    assert float(draws.draw_variance(same).max()) < 1e-12


def test_variation_ratio_counts_the_modal_class() -> None:
    # TorchUncertainty 0.13 votes over the batch instead of the draws
    answers = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 1, 3]])
    logits = torch.nn.functional.one_hot(answers, 4).float() * 9
    assert draws.variation_ratio(logits).tolist() == pytest.approx([0.0, 0.4, 0.6, 0.6])


@pytest.mark.parametrize("name", FROM_DRAWS)
def test_disagreement_is_above_agreement(name: str) -> None:
    sure = torch.tensor([[6.0, 0.0, 0.0]]).expand(4, 1, 3)
    torn = torch.tensor([[[6.0, 0.0, 0.0]], [[0.0, 6.0, 0.0]], [[1.0, 0.0, 2.0]], [[0.0, 0.0, 6.0]]])
    assert FROM_DRAWS[name](torn) > FROM_DRAWS[name](sure)


@pytest.mark.parametrize("name", FROM_DRAWS)
def test_draws_have_no_order_samples_do_not_see_each_other_and_dense_is_flat(name: str) -> None:
    score = FROM_DRAWS[name]
    logits = 3 * torch.randn(5, 6, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    dense = score(logits)
    flat = score(logits.permute(0, 1, 3, 4, 2).reshape(5, -1, 4)).reshape(6, 2, 3)
    torch.testing.assert_close(dense, flat)
    torch.testing.assert_close(score(logits[[3, 1, 4, 0, 2]]), dense)
    torch.testing.assert_close(torch.cat([score(logits[:, i : i + 1]) for i in range(6)]), dense)
    torch.testing.assert_close(score(logits + 7 * torch.arange(5).reshape(5, 1, 1, 1, 1)), dense, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(score(logits.double()).float(), dense, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(score(1e4 * logits)).all()
    assert torch.isfinite(score(torch.full((3, 2, 4), -torch.inf).index_fill(2, torch.tensor([0]), 0.0))).all()
