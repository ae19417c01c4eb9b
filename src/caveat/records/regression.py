"""The record of a regression network: every number that its report shows, as validated JSON; no torch."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from caveat.records.base import Estimate, Number, Part
from caveat.records.record import Curve
from caveat.records.task import Kept, Preview, TaskRecord

__all__ = ["Answered", "Distributional", "Intervals", "RegressionRecord", "Uncertainty"]


class Distributional(Part):
    """How good the predicted distributions are: as they are (`none`), or with one factor for all deviations."""

    name: Literal["none", "variance_scaling"]
    factor: Number
    """Of the deviations; fitted on the calibration split."""
    nll: Estimate | None
    """In nats, of a density: it depends on the labels' unit. None where the form has no density."""
    crps: Estimate | None
    """In the labels' units. None where the form does not tell it."""
    pinball: Estimate | None = None
    """Of quantiles, instead of both."""
    calibration_error: Number | None
    """Mean distance of the calibration curve from the diagonal."""
    sharpness: Number | None
    """Mean predicted standard deviation, in the labels' units."""
    curve: Curve | None
    """x: predicted probability that the label is below; y: share of the labels that are."""


class Intervals(Part):
    """Intervals meant to hold the label with a probability of 1 - error."""

    name: str
    promised: bool
    """Whether they were fitted on the calibration split so that the coverage is promised (conformal prediction)."""
    error: Number
    coverage: Estimate
    """Share of the labels inside (PICP)."""
    width: Number
    """Mean width (MPIW), in the labels' units."""
    score: Number
    """Interval score: width, and 2/error times how far labels lie outside."""
    unbounded: int = 0
    """Samples whose interval is infinite, as the calibration split is too small; width and score are of the others."""
    fitted_on: int


class Uncertainty(Part):
    """Mean standard deviations of one set, in the labels' units; None where the network does not tell them."""

    set: str
    total: Number | None
    aleatoric: Number | None
    epistemic: Number | None


class Answered(Part):
    """Some test samples, for the pictures: one entry of each list for each sample."""

    prediction: list[Number]
    label: list[Number]
    lower: list[Number]
    upper: list[Number]
    """Ends of a conformal interval."""
    score: list[Number] = Field(default_factory=list)
    """Of the guard's score; empty without one."""


class RegressionRecord(TaskRecord):
    """One regression network, its data, and what was found."""

    TASK: ClassVar[str] = "regression"

    task: Literal["regression"] = "regression"
    form: str
    """What the outputs mean: a name of `scores.distribution.FORMS`."""
    networks: int
    """How many networks answered together."""
    rmse: Estimate
    """Root mean squared error, in the labels' units."""
    mae: Estimate
    r2: Number
    """1 - mean squared error / variance of the labels: 0 for whoever always answers with the labels' mean."""
    label_mean: Number
    label_std: Number
    """Of the test labels."""
    distributions: list[Distributional] = Field(default_factory=list[Distributional])
    """Empty for point predictions."""
    intervals: list[Intervals]
    uncertainty: list[Uncertainty] = Field(default_factory=list[Uncertainty])
    selective: list[Kept] = Field(default_factory=list[Kept])
    operating: list[Preview] = Field(default_factory=list[Preview])
    answered: Answered

    def report(self, path: str | Path) -> None:
        """Write the page: one HTML file that needs nothing beside itself."""
        from caveat.report.regression import write  # only here: a record must be readable without the report

        write(self, path)
