"""What the network does with each class: the confusion matrix and figures per class. Part of the record; no torch."""

from pydantic import Field

from caveat.records.base import Number, Part

__all__ = ["Confused", "Confusion", "PerClass"]


class Confused(Part):
    """Samples of one class that were predicted to be another."""

    label: str
    """The true class."""
    predicted: str
    count: int


class Confusion(Part):
    """The confusion matrix of the evaluation split."""

    matrix: list[list[int]] = Field(default_factory=list[list[int]])
    """Counts in the order of the record's classes: rows true, columns predicted. Empty where there are too many
    classes to look at."""
    most: list[Confused]
    """The most frequent confusions, the most frequent first."""


class PerClass(Part):
    """Figures of one class, over the samples whose label it is."""

    name: str
    count: int
    """Samples of the evaluation split."""
    accuracy: Number | None
    """Recall: share of them that is right; None without samples, like the next."""
    mean_confidence: Number | None
    auroc: Number | None = None
    """Wrong against right answers within the class; None where one kind is missing."""
    accepted: Number | None = None
    """Share that the previewed guard accepts."""
