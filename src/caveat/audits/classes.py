"""What the network does with each class, and the warnings a person would want first."""

from collections.abc import Sequence

import torch
from torch import Tensor

from caveat.metrics.interval import interval_of_share
from caveat.metrics.ranking import auroc
from caveat.metrics.tally import tally
from caveat.observations import squashed
from caveat.records.classes import Confused, Confusion, PerClass
from caveat.types import Labels, Logits

__all__ = ["confusion", "per_class", "warnings"]

LARGEST = 50
"""Classes beyond which nobody looks at a matrix."""
MOST = 20
"""Confusions that are listed."""
NAMED = 5
"""Classes that a warning names."""
FEW = 5
"""Samples of a class from which on it may seem to be exchanged for another."""


def confusion(logits: Logits, labels: Labels, classes: Sequence[str]) -> Confusion:
    """Count the samples by true and predicted class.

    Parameters
    ----------
    logits, labels
        Of the evaluation split; labels in [0, c - 1].
    classes
        Names of the classes, in the order of the logits.

    Returns
    -------
    Confusion
        The matrix (rows true, columns predicted) for at most 50 classes, and the most frequent confusions for any
        number; those of equal count are in the order of the classes.

    >>> found = confusion(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 0, 1]), ["cat", "dog"])
    >>> found.matrix, [(item.label, item.predicted, item.count) for item in found.most]
    ([[1, 1], [0, 1]], [('cat', 'dog', 1)])
    """
    predicted, size = logits.argmax(dim=1), len(classes)
    pairs, counts = torch.stack([labels, predicted]).unique(dim=1, return_counts=True)
    wrong = pairs[0] != pairs[1]
    order = counts[wrong].argsort(descending=True, stable=True)[:MOST]
    found = zip(pairs[:, wrong][:, order].T.tolist(), counts[wrong][order].tolist(), strict=True)
    most = [Confused(label=classes[int(i)], predicted=classes[int(j)], count=int(n)) for (i, j), n in found]
    if size > LARGEST:
        return Confusion(most=most)
    matrix = torch.zeros(size, size, dtype=torch.long).index_put_((pairs[0], pairs[1]), counts)
    return Confusion(matrix=matrix.tolist(), most=most)


def per_class(
    logits: Logits, labels: Labels, score_values: Tensor | None, threshold: float | None, classes: Sequence[str]
) -> list[PerClass]:
    """Figures of each class, over the samples whose label it is.

    Parameters
    ----------
    logits, labels
        Of the evaluation split; labels in [0, c - 1].
    score_values
        Values `(n,)` of the score that the guard would use (higher = less trustworthy); None leaves out the AUROC.
    threshold
        The previewed guard's: a sample is accepted when its score is at or below it. None leaves out the share
        accepted.
    classes
        Names of the classes, in the order of the logits.

    Returns
    -------
    list[PerClass]
        One per class, in order, those without samples included.
    """
    right = logits.argmax(dim=1) == labels
    confidence = logits.double().softmax(dim=1).amax(dim=1)
    rows: list[PerClass] = []
    for position, name in enumerate(classes):
        here = labels == position
        count = int(here.sum())
        if not count:
            rows.append(PerClass(name=name, count=0, accuracy=None, mean_confidence=None))
            continue
        ranked, accepted = None, None
        if score_values is not None:
            both = bool(right[here].any()) and not bool(right[here].all())
            ranked = float(auroc(tally(score_values[here], ~right[here]))) if both else None
            accepted = None if threshold is None else float((score_values[here] <= threshold).double().mean())
        rows.append(
            PerClass(
                name=name,
                count=count,
                accuracy=float(right[here].double().mean()),
                mean_confidence=float(confidence[here].mean()),
                auroc=ranked,
                accepted=accepted,
            )
        )
    return rows


def warnings(logits: Logits, labels: Labels, classes: Sequence[str]) -> list[str]:
    """What a person would look for first when the figures are strange.

    An accuracy that chance would reach (always predicting the most frequent class), classes that are predicted for one
    another, a class that is never predicted although it occurs, a class that does not occur.

    >>> warnings(torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 2, 2]), ["ant", "bee", "cat"])
    []
    """
    predicted = logits.argmax(dim=1)
    present = torch.bincount(labels, minlength=len(classes))
    answered = torch.bincount(predicted, minlength=len(classes))
    found: list[str] = []
    share = interval_of_share(int((predicted == labels).sum()), len(labels))
    chance = float(present.max()) / len(labels)
    if share.low <= chance and len(classes) > 1 and int((present > 0).sum()) > 1:
        found.append(
            f"The accuracy, {share.value:.1%}, is not clearly above the {chance:.1%} that always predicting the most "
            "frequent class would reach. Are its weights loaded? Is the normalisation in the model? Is the class order "
            "the folder's?"
        )
    if exchanged := _exchanged(predicted, labels, len(classes)):
        told = [f"{hits} of {of} {classes[a]} are predicted {classes[b]}" for a, b, hits, of in exchanged[:NAMED]]
        found.append(
            f"Classes seem to be exchanged: {', '.join(told)}. Are the data's classes in the model's order? Folders "
            "are taken by name in alphabetical order; --classes names the model's."
        )
    never = [name for name, here, said in zip(classes, present, answered, strict=True) if here and not said]
    if never:
        found.append(f"Never predicted, although in the test set: {_listed(never)}.")
    absent = [name for name, here in zip(classes, present, strict=True) if not here]
    if absent:
        found.append(f"Not in the evaluation split of the test set, so nothing is measured of: {_listed(absent)}.")
    return [*found, *([told] if (told := squashed(logits)) else [])]


def _exchanged(predicted: Tensor, labels: Tensor, count: int) -> list[tuple[int, int, int, int]]:
    """Classes that are mostly predicted as another one, and these again as one of them: class, predicted, how many, of.

    >>> _exchanged(torch.tensor([1] * 6 + [0] * 5 + [2]), torch.tensor([0] * 6 + [1] * 5 + [2]), 3)
    [(0, 1, 6, 6), (1, 0, 5, 5)]
    """
    counts = torch.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    most, total = counts.max(dim=1), counts.sum(dim=1)
    moved = {
        k: int(most.indices[k])
        for k in range(count)
        if int(most.indices[k]) != k and 2 * int(most.values[k]) > int(total[k]) >= FEW
    }
    while moved.keys() != {*moved.values()}:  # what is left are whole cycles
        moved = {k: v for k, v in moved.items() if v in moved and k in moved.values()}
    return [(k, v, int(counts[k, v]), int(total[k])) for k, v in moved.items()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
