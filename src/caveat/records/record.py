"""The record of an audit: every number that the report shows, as validated JSON.

A record holds plain numbers, strings and small pictures. It imports no torch, so that a report can be made anywhere.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from caveat.errors import DataError
from caveat.files import read_json, write_atomically
from caveat.records.attack import Attacked
from caveat.records.base import Estimate, Number, Part
from caveat.records.gradients import Learned, Strip
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
    "Operating",
    "Performance",
    "Picture",
    "Record",
    "Reliability",
    "Score",
    "Selective",
    "SetSummary",
    "Sweep",
]

SCHEMA = 1


class Curve(Part):
    """A curve of at most a few hundred points."""

    x: list[Number]
    y: list[Number]


class Conformal(Part):
    """Sets of classes that hold the right one with a promised rate; fitted on the calibration split."""

    name: str
    error: Number
    """Promised rate of sets without the right class, at most."""
    coverage: Estimate
    """Share of sets that hold the right class, with its binomial 95 % interval."""
    mean_size: dict[str, Number]
    """Per set (`test` and the OOD ones), the mean number of classes."""
    size_shares: dict[str, list[Number]]
    """Per set, the share of its inputs whose set has 0, 1, 2, ... classes."""


class Operating(Part):
    """What a guard with this score and threshold does with every set."""

    score: str
    calibration: str
    keep: Number
    """Share of in-distribution inputs that was asked for."""
    threshold: Number
    accepted: dict[str, Number]
    """Per set, the share that is answered."""
    error: Number
    """Share of wrong answers among the known that are answered."""
    error_of_all: Number
    """Share of wrong answers if all are answered."""


class Choice(Part):
    """The score that is best by what can be known without OOD data."""

    score: str
    why: str
    """In words, with the figures it rests on."""
    figures: dict[str, Number]
    """Per score, its figure of merit in [0, 1]; higher is better."""


class DrawsOf(Part):
    """What the draws of a posterior say of one set, on the mean; in nats. In-distribution data are split: `correct`,
    `wrong`."""

    set: str
    total: Number
    """Predictive entropy; aleatoric + epistemic."""
    aleatoric: Number
    """Expected entropy: what more data would not remove."""
    epistemic: Number
    """Mutual information: what more data would."""
    agreement: Number
    """Share of the draws that vote for the most voted class."""


class DrawsGain(Part):
    """Figures of the mean of the first draws."""

    draws: int
    accuracy: Number
    nll: Number
    ece: Number
    auroc: dict[str, Number]
    """Per OOD set, of the predictive entropy."""


class Draws(Part):
    """What many networks say together."""

    count: int
    sets: list[DrawsOf]
    gain: list[DrawsGain]
    """Ascending in the number of draws."""


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
    """Noise and the like: easy to find, so finding it proves little."""
    estimated_accuracy: Number | None = None
    """Mean calibrated confidence: the accuracy to expect if the inputs are of the in-distribution kind (known,
    unlabelled)."""


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


class Score(Part):
    """What a score is; the texts come from its docstring."""

    name: str
    family: Literal["logits", "features", "head", "layers", "draws", "model", "reconstruction", "gradients", "meta"]
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
    """How well one score tells one OOD set from the known one (OOD = positive)."""

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
    """Share of the OOD inputs that pass when 95 % of the known are kept."""
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
    """x: coverage; y: share of wrong answers among those kept."""


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


class Record(Part):
    """One model, its data, many questions, and their answers."""

    schema_version: Literal[1] = SCHEMA
    caveat_version: str
    created: str
    """ISO 8601, UTC."""
    settings: dict[str, str | int | float | bool | list[str] | None]
    """The resolved value of every option."""
    model: str
    parameters: int
    head: str
    """Name of the layer that produces the logits."""
    classes: list[str]
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
    strips: list[Strip] = Field(default_factory=list[Strip])
    """Statistics of gradients per set, where gradients were observed."""
    learned: list[Learned] = Field(default_factory=list[Learned])
    """What the meta classifiers look at."""
    scenes: Scenes | None = None
    """Of dense prediction."""
    attacked: list[Attacked] = Field(default_factory=list[Attacked])
    """Accuracy under attack, where it was asked for."""
    notes: list[str] = Field(default_factory=list)
    """What the reader must know: what was left out, and why."""
    seconds: dict[str, Number]

    def save(self, path: str | Path) -> None:
        """Write the record as JSON: to a temporary name first, then renamed."""
        write_atomically(Path(path), self.model_dump_json())

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Read a record.

        Raises
        ------
        DataError
            If the file is missing, is not JSON, or is not a record of this schema.
        """
        try:
            return cls.model_validate(read_json(Path(path), name="record"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DataError(f"record: {path} is not a record of schema {SCHEMA}: {place}: {first['msg']}") from None
