"""The record of a multi-label network: every number that its report shows, as validated JSON; no torch."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from caveat.records.base import Estimate, Number, Part
from caveat.records.record import Reliability
from caveat.records.task import Kept, Preview, TaskRecord

__all__ = ["LabelSets", "MultilabelRecord", "OneLabel", "Probabilities"]


class OneLabel(Part):
    """How well one label is found; judged on the evaluation split."""

    name: str
    prevalence: Estimate
    """Share of the samples that have it."""
    auroc: Estimate | None
    """None, like the next, of a label that no sample has, or all."""
    average_precision: Estimate | None
    accuracy: Estimate
    """At the threshold, like the next three."""
    precision: Estimate | None
    """None of a label that is never predicted."""
    recall: Estimate | None
    """None of a label that no sample has."""
    f1: Number
    ece: Estimate
    """Of the label's probability as it is."""
    ece_scaled: Estimate
    """After temperature scaling."""
    temperature: Number
    """Fitted on the calibration split; 1 of a label that none of its samples has, or all."""


class Probabilities(Part):
    """How well calibrated the probabilities are: as they are (`none`), or with a temperature for each label."""

    name: Literal["none", "temperature"]
    cross_entropy: Estimate
    """Mean binary cross-entropy of a label, in nats."""
    ece: Number
    """Of all pairs of sample and label together; they are not independent, so there is no interval."""
    ece_labelwise: Number
    """Mean of the labels' ECE."""
    ece_any: Estimate
    """Of the probability that a sample has a label at all, if the labels are independent given the input."""
    reliability: Reliability
    """Of all pairs."""
    reliability_any: Reliability


class LabelSets(Part):
    """All labels that are likely enough, so that a share of `error` of a sample's labels is missed at most, on average.

    By conformal risk control on the calibration split.
    """

    error: Number
    threshold: Number
    """Of the probability as it is; 0 where the calibration split was too small: all labels."""
    found: Estimate
    """Mean share of a sample's labels that are in its set, of the evaluation split's samples that have one."""
    size: dict[str, Number]
    """Per set, the mean number of labels."""
    fitted_on: int
    """Samples of the calibration split that have a label."""
    judged_on: int


class MultilabelRecord(TaskRecord):
    """One multi-label network, its data, and what was found."""

    TASK: ClassVar[str] = "multilabel"

    task: Literal["multilabel"] = "multilabel"
    threshold: Number
    """Probability from which on a label counts as predicted."""
    networks: int
    """How many networks answered together."""
    labels_of_each: Number
    """Mean number of labels that a sample of the evaluation split has."""
    labels: list[OneLabel] = Field(min_length=2)
    f1_micro: Number
    f1_macro: Number
    hamming_loss: Estimate
    subset_accuracy: Estimate
    """Share of the samples of which every label is right."""
    mean_average_precision: Number | None
    """Over the labels that some samples have and others have not."""
    label_ranking_average_precision: Estimate
    ranking_loss: Estimate
    coverage_error: Estimate
    probabilities: list[Probabilities]
    label_sets: LabelSets | None
    """None where no sample of the calibration split has a label."""
    selective: list[Kept] = Field(default_factory=list[Kept])
    operating: list[Preview] = Field(default_factory=list[Preview])

    def report(self, path: str | Path) -> None:
        """Write the page: one HTML file that needs nothing beside itself."""
        from caveat.report.multilabel import write  # only here: a record must be readable without the report

        write(self, path)
