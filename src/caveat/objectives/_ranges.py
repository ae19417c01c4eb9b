"""The ranges of an objective's numbers: one refusal for all, which names the argument that is out of it."""

import math

from caveat.errors import OptionError

__all__ = ["at_least", "fraction"]


def at_least(name: str, value: float, least: int | float) -> None:
    """Refuse a number below `least`, by its argument.

    >>> at_least("weight", -1.0, 0)
    Traceback (most recent call last):
    caveat.errors.OptionError: weight: expected a finite number of at least 0, got -1.0
    """
    if not least <= value < math.inf:
        raise OptionError(f"{name}: expected a finite number of at least {least}, got {value}")


def fraction(name: str, value: float, *, below: bool = False) -> None:
    """Refuse a number outside of [0, 1], or of [0, 1) with `below`, by its argument."""
    if not 0 <= value <= 1 or (below and value == 1):
        raise OptionError(f"{name}: expected a number in [0, 1{')' if below else ']'}, got {value}")
