"""What an audit found under attack: accuracy against radius, and the worst inputs. Part of the record; no torch."""

from typing import Literal

from pydantic import Field

from caveat.records.base import Number, Part

__all__ = ["Attacked", "AttackedPicture", "AttackedRadius", "Guaranteed"]


class AttackedRadius(Part):
    """One radius."""

    radius: Number
    """In units of the inputs; 0 is no attack."""
    accuracy: Number
    """Share of inputs that are answered rightly whatever the attack tried: an upper bound of what is safe."""
    low: Number
    high: Number
    """Wilson's 95 % interval."""
    verified: Number | None = None
    """Share of the inputs whose right answer is proved to stay whatever is changed: a lower bound of what is safe. None
    where no certificate was asked for."""


class Guaranteed(Part):
    """How well the maximum softmax probability tells OOD inputs, whatever is changed of them within a radius."""

    ood: str
    samples: int
    """OOD inputs that were bounded: a random part of those in [0, 1]."""
    radius: Number
    auroc: Number
    """Of the inputs as they are."""
    guaranteed: Number
    """No change within the radius makes it less."""


class AttackedPicture(Part):
    """An input that a small change turns into a confident mistake."""

    index: int
    """Position in the test set."""
    radius: Number
    """The smallest radius tried that was enough."""
    label: str
    predicted: str
    """After the attack."""
    confidence: Number
    """In that answer."""
    before: str
    """Base64 of a PNG, like the next."""
    after: str
    change: str
    """Grey is no change; scaled so that the largest change is black or white."""


class Attacked(Part):
    """One attack in one norm."""

    attack: str
    """What it is and how many steps it took."""
    norm: Literal["1", "2", "inf"]
    samples: int
    """Inputs that were attacked: a random part of those the audit judges on."""
    masked: int = 0
    """Correctly predicted inputs at which the gradient is zero: a gradient attack alone would find nothing there."""
    radii: list[AttackedRadius]
    pictures: list[AttackedPicture]
    notes: list[str] = Field(default_factory=list[str])
    """What may make the network look more robust than it is."""
    certified_by: str = ""
    """The bounds behind what is verified and guaranteed; empty without."""
    guaranteed: list[Guaranteed] = Field(default_factory=list[Guaranteed])
