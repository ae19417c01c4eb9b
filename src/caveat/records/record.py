"""The record of an audit: every number that the report shows, as validated JSON.

A record holds plain numbers, strings and small pictures. It imports no torch, so that a report can be made anywhere.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from caveat.errors import DataError
from caveat.files import read_json, write_atomically
from caveat.records import views
from caveat.records.attack import Attacked, Transformed
from caveat.records.base import Estimate, Number, Part, task_of
from caveat.records.classes import Confusion, PerClass
from caveat.records.gradients import GradientStatistic, MetaClassifier
from caveat.records.scenes import Scenes

__all__ = [
    "Calibration",
    "Check",
    "Choice",
    "Conformal",
    "Curve",
    "Detection",
    "Draws",
    "DrawsGain",
    "DrawsOf",
    "Estimate",
    "Family",
    "Operating",
    "Performance",
    "Picture",
    "Record",
    "Reliability",
    "Score",
    "Selective",
    "SetSummary",
    "Sweep",
    "lowest_nll",
]

Family = Literal["logits", "draws", "features", "head", "layers", "model", "reconstruction", "gradients", "meta"]
"""What a score needs, in the words of record and command line."""

SCHEMA = 2


def _equally_long(columns: Mapping[str, Sequence[float]]) -> None:
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise ValueError(f"expected lists of one length, got {lengths}")


class Curve(Part):
    """A curve of at most a few hundred points."""

    x: list[Number] = Field(min_length=1)
    y: list[Number] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_points(self) -> "Curve":
        _equally_long({"x": self.x, "y": self.y})
        return self


class Conformal(Part):
    """Sets of classes that hold the right one with a promised rate; fitted on the calibration split."""

    name: str
    error: Number
    """Promised rate of sets without the right class, at most."""
    coverage: Estimate
    """Share of sets that hold the right class, with its binomial 95 % interval."""
    fitted_on: int = 0
    """Samples of the calibration split; 0 where it is not recorded, like the next."""
    judged_on: int = 0
    """Samples of the evaluation split."""
    mean_size: dict[str, Number]
    """Per set (`test` and the OOD ones), the mean number of classes."""
    size_shares: dict[str, list[Number]]
    """Per set, the share of its inputs whose set has 0, 1, 2, ... classes."""


class Operating(Part):
    """What a guard with this score and threshold does with every set."""

    score: str
    calibration: str
    keep: Number
    """Share of in-distribution inputs that it was asked to accept."""
    threshold: Number
    """Set on the calibration split, which is not judged."""
    accepted: dict[str, Number]
    """Per set, the share that is accepted."""
    intervals: dict[str, Estimate] = Field(default_factory=dict[str, Estimate])
    """The same with Wilson's 95 % interval, where it is known."""
    error: Number
    """Share of wrong predictions among the accepted in-distribution inputs."""
    error_of_all: Number
    """Share of wrong predictions if all are accepted."""


class Choice(Part):
    """The score that is best by what can be known without OOD data."""

    score: str
    why: str
    """In words, with the figures it rests on."""
    figures: dict[str, Number]
    """Per score, its figure of merit in [0, 1]; higher is better."""


class DrawsOf(Part):
    """The uncertainty of one set under the posterior samples, on the mean; in nats. In-distribution data are split:
    `correct`, `wrong`."""

    set: str
    total: Number
    """Predictive entropy; aleatoric + epistemic."""
    aleatoric: Number
    """Expected entropy: what more data would not remove."""
    epistemic: Number
    """Mutual information: what more data would."""
    agreement: Number
    """Share of the posterior samples that vote for the most voted class."""


class DrawsGain(Part):
    """Figures of the mean prediction of the first posterior samples."""

    draws: int
    accuracy: Number
    nll: Number
    ece: Number
    auroc: dict[str, Number]
    """Per OOD set, of the predictive entropy."""


class Draws(Part):
    """What an ensemble or the samples of a posterior predict together."""

    count: int
    """How many members or samples."""
    sets: list[DrawsOf]
    gain: list[DrawsGain]
    """Ascending in the number of samples."""


class Check(Part):
    """A condition that the audit was asked to fail on."""

    condition: str
    value: Number
    failed: bool


class Picture(Part):
    """One input worth looking at."""

    kind: Literal["confident error", "uncertain correct", "accepted OOD"]
    score: str
    value: Number
    set: str
    index: int
    """Position in its set."""
    predicted: str
    label: str | None
    """None for OOD inputs."""
    confidence: Number
    png: str
    """Base64 of a PNG of at most 64 pixels a side."""


class SetSummary(Part):
    """One set of inputs. `role`: what the audit used it for."""

    name: str
    role: Literal["test", "train", "ood", "unlabelled"]
    source: str
    count: int
    shape: list[int]
    mean_confidence: Number | None = None
    """Mean maximum softmax probability, in [0, 1]; on far-away inputs an honest network's is near 1/c."""
    generated: bool = False
    """Noise and the like: easy to detect, so detecting it proves little."""
    estimated_accuracy: Number | None = None
    """Mean calibrated confidence: the accuracy to expect if the inputs are in-distribution (of the test set and the
    unlabelled ones)."""
    content: str = ""
    """SHA-256 over its inputs and labels, over the labels alone where no inputs were seen: records of equal content
    were judged on the same data. Empty where it is not known."""


class Reliability(Part):
    """Equal-width bins of confidence; empty bins are left out."""

    confidence: list[Number]
    """Mean confidence in the bin, in [0, 1]."""
    accuracy: list[Number]
    share: list[Number]
    """Share of the samples in the bin; sums to 1."""


class Performance(Part):
    """How right and how well calibrated the network is on in-distribution data; all judged on the evaluation split."""

    accuracy: Estimate
    nll: Estimate
    brier: Estimate
    ece: Estimate
    """15 equal-width bins, weights |B|/N, mean confidence per bin."""
    ece_equal_mass: Number
    ece_classwise: Number
    mce: Number
    mean_confidence: Number
    brier_calibration: Number
    """Murphy's decomposition: brier = calibration - refinement + uncertainty."""
    brier_refinement: Number
    brier_uncertainty: Number


class Calibration(Part):
    """A calibration fitted on the calibration split and judged on the evaluation split; `none` is the network as it
    is."""

    name: str
    parameters: dict[str, Number]
    summary: Performance
    reliability: Reliability


def lowest_nll(calibrations: Iterable[Calibration]) -> Calibration | None:
    """The one to use, of those that were tried: NLL is a proper score, and the ECE can be low for useless forecasts."""
    return min(calibrations, key=lambda one: one.summary.nll.value, default=None)


class Score(Part):
    """What a score is; the texts come from its docstring."""

    name: str
    family: Family
    """What it needs."""
    summary: str
    source: str
    seconds_fit: Number
    seconds_score: Number
    quantiles: dict[str, list[Number]]
    """Per set, the 0, 1, 5, 25, 50, 75, 95, 99, 100 % quantiles."""
    edges: list[Number]
    """Edges of the histogram's bins (one more than bins)."""
    histogram: dict[str, list[Number]]
    """Per set, the share of its samples in each bin; sums to 1. In-distribution data are split: `correct` and
    `wrong`."""


class Detection(Part):
    """How well one score tells one OOD set from in-distribution data (OOD = positive)."""

    score: str
    ood: str
    auroc: Estimate
    aupr_in: Estimate
    """In-distribution data positive."""
    aupr_out: Estimate
    """OOD data positive."""
    base_rate: Number
    """Share of OOD inputs: what AUPR-Out is for a useless score."""
    fpr_at_95_tpr: Estimate
    """Share of the OOD inputs that are accepted when 95 % of the judged in-distribution inputs are: the literature's
    figure, from a threshold of its own. What a guard accepts is in `Record.operating`."""
    detection_error: Number
    roc: Curve
    """x: share of in-distribution data rejected; y: share of OOD inputs rejected."""
    precision_recall: Curve
    """x: recall of the OOD inputs; y: precision."""


class Selective(Part):
    """Misclassification detection on in-distribution data: reject the least trusted first."""

    score: str
    auroc: Estimate
    """Wrong against correct answers."""
    aurc: Estimate
    e_aurc: Number
    """AURC above that of an ideal order."""
    risk_coverage: Curve
    """x: coverage; y: share of wrong predictions among those accepted."""


class Sweep(Part):
    """What each threshold of a score does; the slider moves through it."""

    score: str
    thresholds: list[Number]
    """Ascending; an answer is accepted when its score is at or below the threshold."""
    accepted_correct: list[Number]
    """Share of all in-distribution samples that are accepted and right."""
    accepted_wrong: list[Number]
    """Share of all in-distribution samples that are accepted and wrong."""
    accepted_ood: dict[str, list[Number]]
    """Per OOD set, the share that is accepted."""

    @model_validator(mode="after")
    def _of_rows(self) -> "Sweep":
        own = {"accepted_correct": self.accepted_correct, "accepted_wrong": self.accepted_wrong}
        _equally_long({"thresholds": self.thresholds} | own | self.accepted_ood)
        return self


class Record(Part):
    """One model, its data, many questions, and their answers."""

    schema_version: Literal[2] = SCHEMA
    caveat_version: str
    name: str = ""
    """What the page is called by; the model's name where empty."""
    created: str
    """ISO 8601, UTC."""
    settings: dict[str, str | int | float | bool | list[str] | None]
    """The resolved value of every option."""
    model: str
    parameters: int
    head: str
    """Name of the layer that produces the logits."""
    classes: list[str]
    observations: str = ""
    """SHA-256 that names the observations kept beside this record; empty if none are kept."""
    sets: list[SetSummary]
    split: str
    """In words: what was fitted on which part, and judged on which."""
    calibrations: list[Calibration]
    scores: list[Score]
    detections: list[Detection]
    selective: list[Selective]
    sweeps: list[Sweep]
    conformal: list[Conformal] = Field(default_factory=list)
    choice: Choice | None = None
    operating: list[Operating] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    draws: Draws | None = None
    """Only of a posterior."""
    pictures: list[Picture]
    confusion: Confusion | None = None
    per_class: list[PerClass] = Field(default_factory=list[PerClass])
    """In the order of `classes`."""
    gradients: list[GradientStatistic] = Field(default_factory=list[GradientStatistic])
    """Statistics of gradients per set, where gradients were observed."""
    meta_classifiers: list[MetaClassifier] = Field(default_factory=list[MetaClassifier])
    """What the meta classifiers look at."""
    scenes: Scenes | None = None
    """Of dense prediction."""
    attacked: list[Attacked] = Field(default_factory=list[Attacked])
    """Accuracy under attack, where it was asked for."""
    transformed: list[Transformed] = Field(default_factory=list[Transformed])
    """Accuracy under rotations, shifts and the like, where it was asked for."""
    warnings: list[str] = Field(default_factory=list)
    """Signs that the model or its data were set up wrongly."""
    notes: list[str] = Field(default_factory=list)
    """What the reader must know: what was left out, and why."""
    seconds: dict[str, Number]

    def save(self, path: str | Path) -> None:
        """Write the record as JSON: to a temporary name first, then renamed."""
        write_atomically(Path(path), self.model_dump_json())

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Read a record.

        Parameters
        ----------
        path
            The `record.json`, or the folder of the audit that wrote it.

        Raises
        ------
        DataError
            If the file is missing, is not JSON, or is not a classifier's record of this schema.
        """
        place = Path(path)
        place = place / "record.json" if place.is_dir() else place
        found: Any = read_json(place, name="record")
        if (task := task_of(found)) not in ("", "classification"):
            raise DataError(f"record: {place} is of the task {task}, where one of a classifier is meant")
        version = found.get("schema_version", SCHEMA) if isinstance(found, dict) and "study" not in found else SCHEMA
        if version != SCHEMA:
            raise DataError(
                f"record: {place} is the record of an audit by another Caveat, of schema {version!r} (1 is Caveat "
                f"0.1's), and this one reads schema {SCHEMA}: audit the model again with  caveat audit"
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"record: {place} is not a record of schema {SCHEMA}: {where}: {first['msg']}") from None

    def summary(self) -> str:
        """The verdict in a few lines of plain text: what to rely on, what not, and what to do next."""
        from caveat.report.verdict import summary  # only here: a record must be readable without the report

        return summary(self)

    def report(self, path: str | Path) -> None:
        """Write the interactive page: one HTML file that needs nothing beside itself."""
        from caveat.report.page import write  # only here, as above

        write(self, path)

    def to_frame(self) -> Any:
        """How well each score detects each OOD set and the model's own mistakes, as rows.

        Returns
        -------
        pandas.DataFrame or list[dict]
            A data frame if pandas is already imported, else a list of dictionaries. One row per score and OOD set
            (`task` is `ood`), and one per score for misclassification (`task` is `misclassification`). Columns that
            do not apply are None.
        """
        rows = views.rows(self)
        pandas: Any = sys.modules.get("pandas")
        return rows if pandas is None else pandas.DataFrame(rows)

    def __repr__(self) -> str:
        """Three lines: what was audited, the figures of the model as it is, what else is there."""
        return views.text(self)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """A small table for notebooks; every text is escaped."""
        return views.html(self)
