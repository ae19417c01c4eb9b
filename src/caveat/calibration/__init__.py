"""Calibrations: what makes a network's confidence the rate at which it is right.

Each is fitted on held-out logits, `fit(logits, labels, *, ...) -> g`, and `g(logits)` are logits again. Conformal
prediction is fitted likewise, and answers with sets of classes.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from caveat.calibration import (
    conformal,
    cqr,
    histogram,
    isotonic,
    linear,
    normalised,
    per_label,
    risk_control,
    temperature,
    variance_scaling,
)
from caveat.calibration._rank import conformal_quantile, exact_share, keeping_threshold

__all__ = [
    "BY_CLASS",
    "CONFORMAL",
    "CONFORMAL_INTERVALS",
    "CUBIC",
    "FROM_LOGITS",
    "KEEP_ORDER",
    "ONE_VERSUS_REST",
    "PARAMETRIC",
    "conformal",
    "conformal_quantile",
    "cqr",
    "exact_share",
    "histogram",
    "isotonic",
    "keeping_threshold",
    "linear",
    "normalised",
    "per_label",
    "risk_control",
    "temperature",
    "variance_scaling",
]

Fit = Callable[..., Callable[[Tensor], Tensor]]

PARAMETRIC: Mapping[str, Fit] = {
    "temperature": temperature.fit,
    "vector": linear.vector,
    "matrix": linear.matrix,
    "dirichlet": linear.dirichlet,
}
"""Fitted by likelihood: never of a higher NLL than none on the data they are fitted on; smooth in the logits."""

ONE_VERSUS_REST: Mapping[str, Fit] = {"isotonic": isotonic.fit, "histogram": histogram.fit}
"""Steps or curves for each class, normalised: they promise neither."""

FROM_LOGITS: Mapping[str, Fit] = {**PARAMETRIC, **ONE_VERSUS_REST}
"""Fits of the signature `fit(logits, labels, *, ...)`; what they give maps logits to logits."""

KEEP_ORDER: tuple[str, ...] = ("temperature",)
"""Those of `FROM_LOGITS` that keep the order of the classes, and with it every answer."""

CUBIC: tuple[str, ...] = ("matrix", "dirichlet")
"""Those of `FROM_LOGITS` whose cost grows with the cube of the number of classes."""

CONFORMAL: Mapping[str, Fit] = {
    "lac": conformal.lac, "aps": conformal.aps, "raps": conformal.raps,
    "class_conditional": conformal.class_conditional,
}  # fmt: skip
"""Fits of the signature `fit(logits, labels, *, error, ...)`; what they give maps logits to sets of classes."""

BY_CLASS: tuple[str, ...] = ("class_conditional",)
"""Those of `CONFORMAL` with a threshold for each class: their sets need not hold the most probable classes first."""

CONFORMAL_INTERVALS: Mapping[str, Callable[..., cqr.CQR]] = {"cqr": cqr.fit}
"""Fits of the signature `fit(lower, upper, labels, *, error)`; what they give maps ends of intervals to ends."""
