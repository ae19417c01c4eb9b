"""What an audit found under attack: accuracy against radius, and the worst inputs. Part of the record; no torch."""

from typing import Literal

from caveat.records.base import Number, Part

__all__ = ["Attacked", "AttackedPicture", "AttackedRadius"]


class AttackedRadius(Part):
    """One radius."""

    radius: Number
    """In units of the inputs; 0 is no attack."""
    accuracy: Number
    """Share of inputs that are answered rightly whatever the attack tried: an upper bound of what is safe."""
    low: Number
    high: Number
    """Wilson's 95 % interval."""


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
