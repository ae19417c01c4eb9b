"""The parts of a record that more than one file knows: plain numbers, strings and small pictures; no torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

__all__ = [
    "Check",
    "Choice",
    "Conformal",
    "Curve",
    "Draws",
    "DrawsGain",
    "DrawsOf",
    "Estimate",
    "Number",
    "Operating",
    "Part",
    "Picture",
]


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


Number = Annotated[float, BeforeValidator(_six_digits)]
"""A finite number kept to six significant digits: enough for any reader, and it keeps the page small."""


class Part(BaseModel):
    """Fixed once made, no field too many, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(Part):
    """A value with its 95 % bootstrap interval."""

    value: Number
    low: Number
    high: Number


class Curve(Part):
    """A curve of at most a few hundred points."""

    x: list[Number]
    y: list[Number]


class Conformal(Part):
    """Sets of classes that hold the right one with a promised rate; fitted on the tuning part."""

    name: str
    error: Number
    """Promised rate of sets without the right class, at most."""
    coverage: Estimate
    """Share of sets that hold the right class, with its binomial 95 % interval."""
    mean_size: dict[str, Number]
    """Per set (`test` and the unknown ones), the mean number of classes."""
    size_shares: dict[str, list[Number]]
    """Per set, the share of its inputs whose set has 0, 1, 2, ... classes."""


class Operating(Part):
    """What a guard with this score and threshold does with every set."""

    score: str
    calibration: str
    keep: Number
    """Share of known inputs that was asked for."""
    threshold: Number
    accepted: dict[str, Number]
    """Per set, the share that is answered."""
    error: Number
    """Share of wrong answers among the known that are answered."""
    error_of_all: Number
    """Share of wrong answers if all are answered."""


class Choice(Part):
    """The score that is best by what can be known without unknown data."""

    score: str
    why: str
    """In words, with the figures it rests on."""
    figures: dict[str, Number]
    """Per score, its figure of merit in [0, 1]; higher is better."""


class DrawsOf(Part):
    """What the draws of a posterior say of one set, on the mean; in nats. Known data are split: `correct`, `wrong`."""

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
    """Per unknown set, of the predictive entropy."""


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

    kind: Literal["trusted mistake", "doubted correct", "passing unknown"]
    score: str
    value: Number
    set: str
    index: int
    """Position in its set."""
    predicted: str
    label: str | None
    """None for unknowns."""
    confidence: Number
    png: str
    """Base64 of a PNG of at most 64 pixels a side."""
