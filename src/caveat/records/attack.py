"""What an audit found under attack: accuracy against radius, the worst inputs, the nearest ones, and transformations.

Part of the record; no torch.
"""

from typing import Literal

from pydantic import Field

from caveat.records.base import Estimate, Number, Part

__all__ = [
    "Attacked",
    "AttackedPicture",
    "AttackedRadius",
    "Guaranteed",
    "Perturbation",
    "Smallest",
    "Transformed",
    "TransformedPicture",
]


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


class Perturbation(Part):
    """The smallest change found that makes a right answer another one."""

    index: int
    """Position in the test set."""
    distance: Number
    """In the norm of the attack: an upper bound of the smallest there is."""
    label: str
    predicted: str
    """After the change."""
    confidence: Number
    """In that answer."""
    before: str = ""
    """Base64 of a PNG, like the next; empty where inputs are no pictures."""
    after: str = ""
    change: str = ""
    """Grey is no change; scaled so that the largest change is black or white."""


class Smallest(Part):
    """How far the nearest input with another answer is, of some inputs that are answered rightly."""

    attack: str
    """What looked for it."""
    samples: int
    """Inputs it was looked for."""
    found: int
    """Inputs for which one was found."""
    masked: int = 0
    """Inputs at which the gradient is zero: there the distance is that of what the attack within the radii found."""
    quartiles: list[Number | None] = Field(min_length=3, max_length=3)
    """A quarter, half and three quarters of all inputs have a distance of at most this; None where fewer have any."""
    nearest: list[Perturbation]
    """The smallest first."""


class TransformedPicture(Part):
    """A picture that a transformation turns into a mistake."""

    index: int
    label: str
    predicted: str
    confidence: Number
    change: str
    """The parameters, in words; empty where they are not known."""
    before: str
    after: str


class Transformed(Part):
    """Rotations, shifts, ...: how many answers stay right, from above and from below."""

    ranges: dict[str, list[Number]]
    """By parameter: rotate (degrees), right and down (pixels), scale, shear, contrast, brightness."""
    attack: str
    samples: int
    """Pictures that were transformed: a random part of those the audit judges on."""
    clean: Estimate
    """Accuracy on these pictures as they are."""
    accuracy: Estimate
    """Share that is answered rightly whatever transformation was tried: an upper bound of what is safe."""
    certified_by: str = ""
    """The bounds behind what is certified; empty where there are none."""
    verified: Estimate | None = None
    """Share whose right answer is proved to stay under every transformation: a lower bound of what is safe."""
    seconds: Number | None = None
    """For all pictures, after which those that are not decided count as not certified."""
    why_not: str = ""
    """Why nothing is certified."""
    pictures: list[TransformedPicture] = Field(default_factory=list[TransformedPicture])


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
    smallest: Smallest | None = None
    """None where it was not looked for."""
