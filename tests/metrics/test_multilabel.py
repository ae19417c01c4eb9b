"""Metrics of label sets and rankings of labels, beside scikit-learn's and worked out by hand."""

import warnings

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from caveat.errors import DataError
from caveat.metrics import calibration, multilabel


def problem(n: int = 200, c: int = 6, *, seed: int = 0, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities and labels that agree to some degree; some samples have no label, one has all."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) - 1
    labels = torch.rand(n, c, generator=generator) < logits.sigmoid()
    labels[0], labels[1] = True, False
    noisy = logits + torch.randn(n, c, generator=generator, dtype=torch.float64)
    return (noisy.mul(2).round().div(2) if ties else noisy).sigmoid(), labels


@pytest.mark.parametrize("ties", [False, True])
def test_as_scikit_learn_has_them(ties: bool) -> None:
    probs, labels = problem(ties=ties)
    said = probs >= 0.5
    truth, p, yes = labels.int().numpy(), probs.numpy(), said.int().numpy()
    expected = {
        "hamming_loss": sk.hamming_loss(truth, yes),
        "subset_accuracy": sk.accuracy_score(truth, yes),
        "f1_micro": sk.f1_score(truth, yes, average="micro"),
        "f1_macro": sk.f1_score(truth, yes, average="macro"),
        "mean_average_precision": sk.average_precision_score(truth, p, average="macro"),
        "label_ranking_average_precision": sk.label_ranking_average_precision_score(truth, p),
        "ranking_loss": sk.label_ranking_loss(truth, p),
        "coverage_error": sk.coverage_error(truth, p),
    }
    for name, value in expected.items():
        given = said if name in ("hamming_loss", "subset_accuracy", "f1_micro", "f1_macro") else probs
        assert getattr(multilabel, name)(given, labels).item() == pytest.approx(float(value), abs=1e-12), name
    torch.testing.assert_close(
        multilabel.f1(said, labels), torch.from_numpy(sk.f1_score(truth, yes, average=None)), rtol=1e-12, atol=1e-12
    )


def test_by_hand() -> None:
    # a true label second of three: LRAP 1/2, one of two pairs wrong, two steps down
    scores, labels = torch.tensor([[0.2, 0.9, 0.1]]), torch.tensor([[True, False, False]])
    assert multilabel.label_ranking_average_precision(scores, labels).item() == 0.5
    assert multilabel.ranking_loss(scores, labels).item() == 0.5
    assert multilabel.coverage_error(scores, labels).item() == 2.0
    assert multilabel.hamming_loss(scores > 0.5, labels).item() == pytest.approx(2 / 3)
    assert multilabel.missed_share_of_each(
        torch.tensor([[True, False, False], [False, False, True]]), torch.tensor([[True, True, False], [False] * 3])
    ).tolist() == [0.5, 0.0]


def test_a_label_that_nobody_has_leaves_the_mean_average_precision_and_counts_zero_in_f1() -> None:
    probs, labels = problem()
    labels[:, 2] = False
    each = multilabel.average_precisions(probs, labels)
    assert each.isnan().tolist() == [False, False, True, False, False, False]
    assert multilabel.mean_average_precision(probs, labels).item() == pytest.approx(each.nanmean().item(), abs=1e-12)
    assert multilabel.f1(torch.zeros_like(labels), labels)[2] == 0
    with pytest.raises(DataError, match="some samples have and others have not"):
        multilabel.mean_average_precision(probs, torch.zeros_like(labels))


def test_bins_of_each_label_pooled_and_of_any_label() -> None:
    probs, labels = problem(500)
    rows = multilabel.label_bins(probs, labels)
    assert rows.count.shape == (6, 15)
    # of one label: the mean gap in bins, straight from the definition
    p, y = probs[:, 3], labels[:, 3].double()
    cell = (p * 15).ceil().long().clamp(1, 15) - 1
    gaps = [(y[cell == k].sum() - p[cell == k].sum()).abs() for k in range(15)]
    assert calibration.ece(rows)[3].item() == pytest.approx((sum(gaps) / 500).item(), abs=1e-12)
    assert rows.count.sum() == 3000
    anyone = multilabel.any_label(probs)
    torch.testing.assert_close(anyone, 1 - (1 - probs).prod(dim=1))
    assert multilabel.any_label(torch.tensor([[1.0, 0.5], [0.0, 0.0]])).tolist() == [1.0, 0.0]
    counted = multilabel.any_label_bins(probs, labels)
    assert counted.hits.sum() == labels.any(dim=1).sum()
    assert counted.confidence.sum().item() == pytest.approx(anyone.sum().item(), abs=1e-9)


def test_order_of_samples_and_labels_is_irrelevant_and_only_ranks_count() -> None:
    probs, labels = problem(ties=True)
    rows, columns = torch.randperm(200, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 1, 0, 5, 4, 2])
    for name in ("mean_average_precision", "label_ranking_average_precision", "ranking_loss", "coverage_error"):
        metric = getattr(multilabel, name)
        value = metric(probs, labels).item()
        assert metric(probs[rows][:, columns], labels[rows][:, columns]).item() == pytest.approx(value, abs=1e-12)
        assert metric(probs.logit(), labels).item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 3, dtype=torch.bool)),
        (torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.bool)),
        (torch.full((3, 2), torch.nan), torch.zeros(3, 2, dtype=torch.bool)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.bool)),
    ],
)
def test_hostile_arguments_are_refused(scores: Tensor, labels: Tensor) -> None:
    from tests.conftest import shapes_unchecked

    with shapes_unchecked():
        for metric in (multilabel.ranking_loss, multilabel.coverage_error, multilabel.mean_average_precision):
            with pytest.raises(DataError):
                metric(scores, labels)


def test_scikit_learn_warns_where_a_label_is_missing_and_we_say_nan() -> None:
    probs, labels = problem()
    labels[:, 0] = False
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        theirs = sk.average_precision_score(labels.int().numpy(), probs.numpy(), average=None)
    assert told
    torch.testing.assert_close(multilabel.average_precisions(probs, labels)[1:], torch.from_numpy(theirs)[1:])
