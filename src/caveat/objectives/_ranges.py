"""The ranges of an objective's numbers: one refusal for all, which names the argument that is out of it."""

import math

from caveat.errors import OptionError

__all__ = ["at_least", "fraction"]


def at_least(least: int | float, **numbers: float) -> None:
    """Refuse a number below `least`, by its argument.

    >>> at_least(0, weight=-1.0)
    Traceback (most recent call last):
    caveat.errors.OptionError: weight: expected a finite number of at least 0, got -1.0
    """
    for name, value in numbers.items():
        if not least <= value < math.inf:
            raise OptionError(f"{name}: expected a finite number of at least {least}, got {value}")


def fraction(*, below: bool = False, **numbers: float) -> None:
    """Refuse a number outside of [0, 1], or of [0, 1) with `below`, by its argument."""
    for name, value in numbers.items():
        if not 0 <= value <= 1 or (below and value == 1):
            raise OptionError(f"{name}: expected a number in [0, 1{')' if below else ']'}, got {value}")
