"""Bins of confidence against torchmetrics, by hand, and the known defects of others as regressions."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from caveat.errors import DataError, OptionError
from caveat.metrics import _check
from caveat.metrics.calibration import (
    Bins,
    classwise_bins,
    confidence_bins,
    ece,
    ece_classwise,
    ece_equal_mass,
    mce,
    mean_confidence,
    merge,
    regroup,
    reliability,
    rmsce,
)
from caveat.metrics.proper import accuracy

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)


def network(n: int = 800, c: int = 5, seed: int = 0, *, sharp: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Overconfident probabilities, float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return (logits * sharp).softmax(1), labels


def binary(confidence: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    first = torch.tensor(confidence, dtype=dtype)
    return torch.stack((first, 1 - first), dim=1)


def same(first: Bins, second: Bins) -> bool:
    return (
        torch.equal(first.count, second.count)
        and torch.equal(first.hits, second.hits)
        and torch.allclose(first.confidence, second.confidence, rtol=1e-13, atol=0)
    )


def test_golden() -> None:
    # Four bins. .6 right and .7 wrong share ].5, .75]: |1 - 1.3|. .8, .9 right and 1 wrong share ].75, 1]: |2 - 2.7|.
    probs, labels = binary([0.6, 0.7, 0.8, 0.9, 1.0]), torch.tensor([0, 1, 0, 0, 1])
    counted = confidence_bins(probs, labels, bins=4)
    assert counted.count.tolist() == [0, 0, 2, 3]
    assert counted.hits.tolist() == [0, 0, 1, 2]
    assert ece(counted).item() == pytest.approx((0.3 + 0.7) / 5)
    assert mce(counted).item() == pytest.approx(0.7 / 3)
    assert rmsce(counted).item() == pytest.approx(((0.3**2 / 2 + 0.7**2 / 3) / 5) ** 0.5)
    assert mean_confidence(counted).item() == pytest.approx(0.8)
    confidence, right, share = reliability(counted)
    assert confidence.tolist() == pytest.approx([0.65, 0.9])
    assert right.tolist() == pytest.approx([1 / 2, 2 / 3])
    assert share.tolist() == pytest.approx([0.4, 0.6])


def test_midpoint_is_the_books_convention() -> None:
    probs, labels = binary([0.6, 0.7, 0.8, 0.9, 1.0]), torch.tensor([0, 1, 0, 0, 1])
    counted = confidence_bins(probs, labels, bins=4, midpoint=True)
    assert reliability(counted).confidence.tolist() == [0.625, 0.875]
    assert ece(counted).item() == pytest.approx((abs(1 - 1.25) + abs(2 - 2.625)) / 5)


def test_certainty_is_in_the_last_bin() -> None:
    # Regression (torchmetrics #3510, TorchUncertainty): confidence 1 got a bin of its own, and .475 became .525.
    probs, labels = binary([0.95, 1.0]), torch.tensor([1, 0])
    assert ece(confidence_bins(probs, labels, bins=10)).item() == pytest.approx(0.475)
    theirs = binary_calibration_error(torch.tensor([0.95, 1.0]), torch.tensor([1, 0]), n_bins=10)
    flipped = binary_calibration_error(torch.tensor([0.95, 0.99999]), torch.tensor([0, 1]), n_bins=10)
    assert ece(confidence_bins(probs, labels, bins=10)).item() == pytest.approx(flipped.item(), abs=1e-4)
    assert theirs.item() == pytest.approx(0.525)  # if this fails, torchmetrics has mended it: drop the two lines


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges_belong_to_the_bin_below(dtype: torch.dtype) -> None:
    tenths = [k / 10 for k in range(11)]
    counted = classwise_bins(binary(tenths, dtype), torch.zeros(11, dtype=torch.int64), bins=10)
    assert counted.count[0].tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]  # 0 and 0.1; 0.2; ...; 1


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize(("norm", "metric"), [("l1", ece), ("l2", rmsce), ("max", mce)])
def test_equals_torchmetrics_below_certainty(bins: int, norm: str, metric) -> None:
    probs, labels = network(sharp=1.0)
    assert probs.max() < 1
    theirs = multiclass_calibration_error(probs, labels, num_classes=5, n_bins=bins, norm=norm)
    assert metric(confidence_bins(probs, labels, bins=bins)).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_classes_that_do_not_occur_are_no_matter() -> None:
    # Regression: netcal raises when only two of three classes are among the labels.
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])
    assert ece(confidence_bins(probs, torch.tensor([0, 1]))).item() == pytest.approx(0.3, abs=1e-6)


@PROPERTY
@given(st.permutations(range(60)), st.integers(1, 20))
def test_order_is_irrelevant_and_merging_is_counting_at_once(order: list[int], bins: int) -> None:
    probs, labels = network(60)
    whole = confidence_bins(probs, labels, bins=bins)
    assert same(confidence_bins(probs[order], labels[order], bins=bins), whole)
    parts = [confidence_bins(probs[order][part], labels[order][part], bins=bins) for part in (slice(25), slice(25, 60))]
    assert same(merge(*parts), whole)
    shuffled = ece_equal_mass(probs[order], labels[order], bins=bins).item()
    assert shuffled == pytest.approx(ece_equal_mass(probs, labels, bins=bins).item(), abs=1e-14)


def dense(values: torch.Tensor) -> torch.Tensor:
    """(96, c) or (96,) as (4, c, 4, 6) or (4, 4, 6)."""
    picture = values.reshape(4, 4, 6, *values.shape[1:])
    return picture.movedim(-1, 1) if values.ndim == 2 else picture


def test_dense_is_flattened_and_void_is_left_out() -> None:
    probs, labels = network(96)
    marked = labels.clone()
    marked[::5] = 255
    kept = marked != 255
    for make in (confidence_bins, classwise_bins):
        assert same(make(dense(probs), dense(labels)), make(probs, labels))
        assert same(make(dense(probs), dense(marked), void=255), make(probs[kept], labels[kept]))
    for metric in (ece_equal_mass, ece_classwise):
        got = metric(dense(probs), dense(marked), void=255).item()
        assert got == pytest.approx(metric(probs[kept], labels[kept]).item(), abs=1e-14)
        assert got != pytest.approx(metric(probs, labels).item(), abs=1e-6)


def test_float32_is_near_float64_and_int32_labels_will_do() -> None:
    probs, labels = network()
    for metric in (lambda p, y: ece(confidence_bins(p, y)), ece_equal_mass, ece_classwise):
        assert metric(probs.float(), labels.int()).item() == pytest.approx(metric(probs, labels).item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_probabilities_are_accepted(dtype: torch.dtype) -> None:
    probs, labels = network()
    got = mean_confidence(confidence_bins(probs.to(dtype), labels)).item()
    assert got == pytest.approx(probs.amax(1).mean().item(), abs=5e-3)


def test_probabilities_that_round_above_one_count_as_one() -> None:
    counted = confidence_bins(torch.tensor([[1.0005, 0.0], [0.0, 1.0005]]), torch.tensor([0, 1]))
    assert mean_confidence(counted).item() == 1
    assert ece(counted).item() == 0


def test_equal_mass_golden() -> None:
    # Ranks 1..4 in two bins: {.6 right, .7 wrong}, {.8 right, .9 wrong}.
    got = ece_equal_mass(binary([0.9, 0.6, 0.8, 0.7]), torch.tensor([1, 0, 0, 1]), bins=2)
    assert got.item() == pytest.approx((abs(1 - 1.3) + abs(1 - 1.7)) / 4)


def test_equal_mass_never_parts_equal_confidences() -> None:
    # Three of four are equal: mean rank 2 puts them in bin ceil(2 * 2 / 4) = 1, the other is alone in bin 2.
    probs, labels = binary([0.75, 0.75, 0.75, 0.9]), torch.tensor([0, 1, 1, 0])
    expected = (abs(1 - 2.25) + abs(1 - 0.9)) / 4
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        assert ece_equal_mass(probs[order], labels[order], bins=2).item() == pytest.approx(expected)
    everyone = ece_equal_mass(binary([0.8] * 7), torch.tensor([0, 0, 0, 0, 1, 1, 1]), bins=3)
    assert everyone.item() == pytest.approx(0.8 - 4 / 7)


@PROPERTY
@given(st.integers(1, 40), st.integers(1, 30))
def test_equal_mass_bins_are_balanced_without_ties(bins: int, n: int) -> None:
    one = torch.ones(n, dtype=torch.float64)
    count = regroup(Bins(one, one, one), bins=bins).count
    assert count.sum() == n
    assert count.max() - count.min() <= 1


def test_ties_are_placed_by_their_mean_rank() -> None:
    # Counts 1, 2, 1: mean ranks 1, 2.5, 4 of 4, so bins ceil(2 * rank / 4) = 1, 2, 2.
    # A fine bin without samples, also the last one, goes somewhere and changes nothing.
    fine = Bins(*(torch.tensor(v, dtype=torch.float64) for v in ([1, 2, 1, 0], [0.5, 1.2, 0.7, 0], [1, 0, 1, 0])))
    coarse = regroup(fine, bins=2)
    assert coarse.count.tolist() == [1, 3]
    assert coarse.confidence.tolist() == pytest.approx([0.5, 1.9])
    assert coarse.hits.tolist() == [1, 1]


def test_equal_mass_can_be_streamed_through_fine_bins() -> None:
    probs, labels = network(4000, sharp=1.3)
    fine = merge(
        confidence_bins(probs[:1500], labels[:1500], bins=4096), confidence_bins(probs[1500:], labels[1500:], bins=4096)
    )
    streamed, exact = ece(regroup(fine)).item(), ece_equal_mass(probs, labels).item()
    assert streamed == pytest.approx(exact, abs=1e-3)


def test_classwise_golden() -> None:
    # Bins ]0, .5] and ].5, 1]. Class 0: {.2: 0 of 1}, {.9, .8: 1 of 2}; class 1: {.1, .2: 1 of 2}, {.8: 1 of 1}.
    got = ece_classwise(binary([0.9, 0.8, 0.2]), torch.tensor([0, 1, 1]), bins=2)
    first = (abs(0 - 0.2) + abs(1 - 1.7)) / 3
    second = (abs(1 - 0.3) + abs(1 - 0.8)) / 3
    assert got.item() == pytest.approx((first + second) / 2)


@PROPERTY
@given(st.integers(0, 1000), st.integers(1, 20))
def test_norms_are_ordered(seed: int, bins: int) -> None:
    counted = confidence_bins(*network(40, seed=seed), bins=bins)
    assert abs(mean_confidence(counted) - counted.hits.sum() / 40) <= ece(counted) + 1e-12
    assert ece(counted) <= rmsce(counted) + 1e-12
    assert rmsce(counted) <= mce(counted) + 1e-12
    assert mce(counted) <= 1


def test_a_calibrated_network_has_little_error_and_an_overconfident_one_much() -> None:
    calibrated, overconfident = (ece(confidence_bins(*network(20_000, sharp=s))).item() for s in (1.0, 3.0))
    assert calibrated < 0.015
    assert overconfident > 0.1


def test_shifted_logits_do_not_change_anything() -> None:
    # Regression: torchmetrics 1.4 guesses logits from values, and shifting them moved its ECE from 0.10 to 0.79.
    probs, labels = network()
    shifted = (probs.log() + 5).softmax(1)
    assert ece(confidence_bins(shifted, labels)).item() == pytest.approx(
        ece(confidence_bins(probs, labels)).item(), abs=1e-12
    )
    with pytest.raises(DataError, match="if these are logits, softmax them"):
        confidence_bins(probs.log(), labels)


@pytest.mark.parametrize(("name", "error", "right"), [("cifar10", 0.0326, 0.9294), ("mnist", 0.0030, 0.9913)])
def test_real_networks(name: str, error: float, right: float) -> None:
    folder = os.environ.get("CAVEAT_DATA")
    if not folder:
        pytest.skip("CAVEAT_DATA is not set")
    file = np.load(Path(folder) / "human_labels" / "cleanlab_test_probs_cifar10_mnist.npz")
    probs, labels = torch.from_numpy(file[f"{name}_probs"]), torch.from_numpy(file[f"{name}_labels"]).long()
    assert ece(confidence_bins(probs, labels)).item() == pytest.approx(error, abs=5e-5)
    assert accuracy(probs, labels).item() == pytest.approx(right, abs=1e-9)


def test_mistakes_are_refused() -> None:
    probs, labels = network(4)
    half = torch.full((4, 5), 0.2)
    half[0] = 0.1
    bad = probs.clone()
    bad[0, 0] = float("nan")
    for make in (confidence_bins, classwise_bins, ece_equal_mass):
        with pytest.raises(DataError, match="probs: expected finite values"):
            make(bad, labels)
        with pytest.raises(DataError, match="sums of 1 over the classes"):
            make(half, labels)
        with pytest.raises(DataError, match="labels: expected 0 to 4, got 5"):
            make(probs, labels * 0 + 5)
        with pytest.raises(DataError, match="labels: expected 0 to 4, got -1"):
            make(probs, labels * 0 - 1)
        with pytest.raises(DataError, match="none is labelled"):
            make(probs, labels * 0 + 9, void=9)
        with pytest.raises(DataError, match="none is labelled"):
            make(probs[:0], labels[:0])
        with pytest.raises(DataError, match="c >= 2"):
            make(probs[:, :1], labels)
        with pytest.raises(OptionError, match="bins: expected at least 1"):
            make(probs, labels, bins=0)
    with pytest.raises(DataError, match="second: expected"):
        merge(confidence_bins(probs, labels, bins=3), confidence_bins(probs, labels, bins=4))
    with pytest.raises(DataError, match="one row of bins"):
        reliability(classwise_bins(probs, labels))
    # Run-time shape checks stand before this one in tests, but not in production.
    with pytest.raises(DataError, match=r"labels: expected shape \(4,\) to go with probs, got \(3,\)"):
        _check.labelled(probs, labels[:3], name="probs", void=None)
