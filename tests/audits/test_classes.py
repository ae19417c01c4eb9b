"""The confusion matrix, figures per class and warnings, against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from caveat.audits.classes import confusion, per_class, warnings


def drawn(size: int, count: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels (never of the last class) and a score."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(size - 1, (count,), generator=draw)
    logits = torch.randn(count, size, generator=draw) + 1.5 * torch.nn.functional.one_hot(labels, size)
    return logits, labels, torch.randn(count, generator=draw) - logits.amax(dim=1)


NAMES = [f"class {i}" for i in range(6)]


def test_the_matrix_is_scikit_learn_s():
    logits, labels, _ = drawn(6, 500)
    predicted = logits.argmax(dim=1)
    found = confusion(logits, labels, NAMES)
    expected = confusion_matrix(labels, predicted, labels=range(6))
    assert found.matrix == expected.tolist()
    assert expected[5].sum() == 0  # the absent class has a row all the same
    counts = [item.count for item in found.most]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 20
    for item in found.most:
        assert item.count == expected[NAMES.index(item.label), NAMES.index(item.predicted)]
        assert item.label != item.predicted
    off = expected - torch.diag(torch.tensor(expected.diagonal())).numpy()
    assert counts == sorted(off[off > 0].tolist(), reverse=True)[:20]


def test_of_many_classes_only_the_most_frequent_confusions_are_listed():
    logits, labels, _ = drawn(51, 400)
    found = confusion(logits, labels, [str(i) for i in range(51)])
    assert found.matrix == []
    assert len(found.most) == 20
    assert confusion(logits[:, :50], labels.clamp(max=49), [str(i) for i in range(50)]).matrix != []


def test_figures_per_class_are_scikit_learn_s():
    logits, labels, score = drawn(6, 500)
    predicted, confidence = logits.argmax(dim=1), logits.softmax(dim=1).amax(dim=1)
    rows = per_class(logits, labels, score, -1.0, NAMES)
    assert [row.name for row in rows] == NAMES
    recall = recall_score(labels, predicted, labels=range(6), average=None, zero_division=0)
    for position, row in enumerate(rows[:5]):
        here = labels == position
        assert row.count == int(here.sum())
        assert row.accuracy == pytest.approx(recall[position], abs=1e-5)
        assert row.mean_confidence == pytest.approx(float(confidence[here].mean()), abs=1e-5)
        assert row.auroc == pytest.approx(roc_auc_score(predicted[here] != position, score[here]), abs=1e-5)
        assert row.accepted == pytest.approx(float((score[here] <= -1.0).float().mean()), abs=1e-5)
    last = rows[5]
    assert (last.count, last.accuracy, last.mean_confidence, last.auroc, last.accepted) == (0, None, None, None, None)


def test_what_cannot_be_known_of_a_class_is_none():
    logits, labels = torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 0])
    (row, absent) = per_class(logits, labels, torch.tensor([0.1, 0.2, 0.2]), 0.2, ["a", "b"])
    assert (row.accuracy, row.auroc, row.accepted) == (pytest.approx(2 / 3, abs=1e-5), 0.75, 1.0)  # a tie counts half
    assert absent.count == 0
    assert per_class(logits[:2], labels[:2], torch.tensor([0.1, 0.2]), None, ["a", "b"])[0].auroc is None  # all right
    assert per_class(logits, labels, None, None, ["a", "b"])[0].accepted is None


def test_warnings_by_hand():
    labels = torch.arange(4).repeat(50)
    right = 2 * torch.eye(4)[labels]
    assert warnings(right, labels, list("abcd")) == []
    rolled = right.roll(1, dims=1)  # a wrong order of classes
    chance, exchanged = warnings(rolled, labels, list("abcd"))
    assert exchanged.startswith("Classes seem to be exchanged: 50 of 50 a are predicted b, 50 of 50 b are predicted c,")
    swapped = right[:, [0, 2, 1, 3]]
    swapped[:20] = right[:20]
    (exchanged,) = warnings(swapped, labels, list("abcd"))  # half of the answers are right: not by chance
    assert exchanged.startswith("Classes seem to be exchanged: 45 of 50 b are predicted c, 45 of 50 c are predicted b.")
    assert chance.startswith("The accuracy, 0.0%, is not clearly above the 25.0%")
    assert "Is the normalisation in the model? Is the class order the folder's?" in chance
    constant = 2 * torch.eye(4)[torch.zeros(200, dtype=torch.long)]
    near, never = warnings(constant, labels, list("abcd"))
    assert near.startswith("The accuracy, 25.0%")
    assert never == "Never predicted, although in the test set: b, c, d."
    wide = torch.nn.functional.pad(right, (0, 7))
    (absent,) = warnings(wide, labels, list("abcdefghijk"))
    assert absent.endswith("so nothing is measured of: e, f, g, h, i and 2 more.")
    # 90 % of one class: an accuracy of 90 % is what chance gives, one of 100 % is not.
    skewed = torch.tensor([0] * 180 + [1] * 20)
    assert warnings(2 * torch.eye(2)[skewed], skewed, ["a", "b"]) == []
    assert len(warnings(2 * torch.eye(2)[torch.zeros(200, dtype=torch.long)], skewed, ["a", "b"])) == 2
