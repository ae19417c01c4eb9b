"""Bounds: what a network's outputs cannot leave over a whole set of inputs, and what follows for its answers."""

from caveat.bounds import confidence, smoothing
from caveat.bounds.certify import METHODS, VERDICTS, Certificate, certify
from caveat.bounds.geometric import GEOMETRIC, certify_transformed
from caveat.bounds.outputs import bounds, rounding

__all__ = [
    "GEOMETRIC", "METHODS", "VERDICTS", "Certificate", "bounds", "certify", "certify_transformed", "confidence",
    "rounding", "smoothing",
]  # fmt: skip
