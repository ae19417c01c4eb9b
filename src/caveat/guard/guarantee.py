"""What a guard guarantees, as a sentence: for the command line and the model card."""

from collections.abc import Sequence

from caveat.guard.stored import Operating
from caveat.guard.threshold import Promise

__all__ = ["guarantee", "of_intervals", "of_label_sets"]

NAMED = 10
"""Classes that are named at most."""


def guarantee(promise: Promise | Operating, classes: Sequence[str]) -> str:
    """What the threshold guarantees, and for what it guarantees nothing; without a full stop."""
    level = f"{promise.level:.1%}"
    if promise.kind == "keep":
        return f"accepts a new in-distribution input with probability {level} or more"
    if promise.kind == "keep_each_class":
        said = f"accepts a fresh input of every class with probability {level} or more"
        return said + (f", but for {_named(promise.without, classes)} (too few samples)" if promise.without else "")
    if promise.kind == "against":
        return f"none; its threshold rejects {level} of that OOD set"
    said = f"at most {level} of the accepted predictions are wrong (95 % confidence)"
    if promise.ood_share is None or promise.ood_accepted is None:
        return f"{said} where all inputs are in-distribution; where OOD inputs come too, nothing is guaranteed"
    return (
        f"{said}, also where up to {promise.ood_share:.1%} of the inputs are OOD, if those are like the held-out OOD "
        f"set (of which at most {promise.ood_accepted:.1%} are accepted); of other OOD inputs nothing is guaranteed"
    )


def of_intervals(promise: Promise | Operating, error: float) -> str:
    """The same of a regression guard."""
    return (
        f"{guarantee(promise, ())}; the interval of an accepted one holds its label with probability {1 - error:.1%} "
        "or more"
    )


def of_label_sets(promise: Promise | Operating, error: float) -> str:
    """The same of a multi-label guard."""
    return (
        f"{guarantee(promise, ())}; of the labels that an accepted one has, a share of {error:.1%} at most is missed "
        "in expectation"
    )


def _named(places: Sequence[int], classes: Sequence[str]) -> str:
    some = ", ".join(classes[place] for place in places[:NAMED])
    return some if len(places) <= NAMED else f"{some} and {len(places) - NAMED} more"
