"""Which networks are plausible? Distributions over weights, masks and members, and what all of them answer.

`start(model, ...)` watches training and ends as a posterior; `fit` and `of` make one from trained networks; `sample`
draws networks, `predict` runs them: `(s, n, c)`; `Predictive` makes one network of all that.
"""

from collections.abc import Callable
from typing import Any

from caveat.posteriors import (
    artefact,
    dropout,
    ensemble,
    laplace,
    perturbation,
    renew,
    snapshots,
    swag,
    tradi,
)
from caveat.posteriors.artefact import KINDS, load, save
from caveat.posteriors.dropout import Dropout
from caveat.posteriors.ensemble import Ensemble
from caveat.posteriors.network import Predictive
from caveat.posteriors.predicting import Posterior, predict, sample

__all__ = [
    "FROM_HEAD",
    "FROM_MODEL",
    "FROM_MODELS",
    "FROM_TRAINING",
    "KINDS",
    "SOURCES",
    "Dropout",
    "Ensemble",
    "Posterior",
    "Predictive",
    "artefact",
    "dropout",
    "ensemble",
    "laplace",
    "load",
    "perturbation",
    "predict",
    "renew",
    "sample",
    "save",
    "snapshots",
    "swag",
    "tradi",
]

FROM_TRAINING: dict[str, Callable[..., Any]] = {
    "swag": swag.start,
    "tradi": tradi.start,
    "snapshots": snapshots.start,
}
"""`start(model, ...) -> tracker`; `tracker.update(model)` after each step; `tracker.posterior()`."""

FROM_MODEL: dict[str, Callable[..., Any]] = {
    "dropout": dropout.of,
    "perturbation": perturbation.fit,
}
"""`of(model)` or `fit(model)`: from one trained network."""

FROM_MODELS: dict[str, Callable[..., Any]] = {"ensemble": ensemble.of}
"""`of(models)`: from several; with `only`, a sub-ensemble."""

FROM_HEAD: dict[str, Callable[..., Any]] = {"laplace": laplace.fit}
"""`fit(features, labels, head, layer=...)`: from observations of the training data."""

SOURCES: dict[str, dict[str, Callable[..., Any]]] = {
    "training": FROM_TRAINING,
    "a trained network": FROM_MODEL,
    "trained networks": FROM_MODELS,
    "observations": FROM_HEAD,
}
"""All of them, by what they are made from."""
