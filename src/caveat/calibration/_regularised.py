"""Fit a linear calibration around temperature scaling, its regularisation chosen by cross-validation.

The rows are divided by their temperature first, and the regularisation pulls towards that map: so a strength means
the same for any network, and the stronger it is the nearer the result is to temperature scaling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caveat.calibration import temperature
from caveat.calibration._newton import Family, minimise, nll
from caveat.errors import DataError, OptionError

__all__ = ["Found", "fit"]

_GRID = (10_000.0, 1_000.0, 100.0, 10.0, 1.0)
"""Precisions of a Gaussian prior, strongest first: deviations of 0.01 to 1 from the temperature map."""
_NONE = (math.inf, math.inf)
"""Strengths of temperature scaling itself."""
_LOOSE, _TIGHT = 1e-4, 1e-11
"""Lengths of the scaled gradient; the value is off by about half their square."""
LARGEST = 1e6
"""Beyond it sums of probabilities times logits are rounding, and Newton's method finds no way down."""
_FOLDS = 5
_ERRORS = 2.0
"""Standard errors by which a weaker regularisation must win: with one, chance cost 8 % of the NLL in one of 20 draws of
400 samples; with two, never more than half a percent, and a map that was really wrong was still found."""


@dataclass(frozen=True)
class Found:
    """The likeliest parameters, for rows divided by the temperature."""

    parameters: Tensor
    temperature: Tensor
    strengths: tuple[float, float]


def fit(family: Family, rows: Tensor, labels: Tensor, *, strengths: tuple[float, float] | None, seed: int) -> Found:
    """Temperature first, then Newton's method around it; infinite strengths give temperature scaling.

    Raises
    ------
    DataError
        If there is one sample only, so that none can be held out, or a logit is beyond a million.
    OptionError
        If a strength is not positive.
    """
    rows = rows.double()
    if float(rows.abs().max()) > LARGEST:
        raise DataError(
            f"logits: expected at most {LARGEST:g} in size, got {float(rows.abs().max()):.3g}: the network diverged; "
            "temperature scaling takes logits of any size"
        )
    if strengths is None:
        strengths = _cross_validated(family, rows, labels, seed)
    elif not all(s > 0 for s in strengths):
        raise OptionError(f"strengths: expected two positive numbers, or None to choose them, got {strengths}")
    scale = temperature.fit(rows, labels).temperature
    start = family.identity(rows.shape[1]).to(rows)
    if strengths == _NONE:
        return Found(start, scale, strengths)
    # An infinite one of the two is a parameter that stays: its precision is as good as infinite.
    precisions = family.precisions(rows.shape[1], *strengths).to(rows).clamp_max(1e12 * len(rows))
    found = minimise(family, rows / scale, labels, precisions, start=start, tolerance=_TIGHT)
    return Found(found, scale, strengths)


def _cross_validated(family: Family, rows: Tensor, labels: Tensor, seed: int) -> tuple[float, float]:
    """Strengths by held-out NLL: first one for weights and intercept, then another for the intercept."""
    if len(rows) < 2:
        raise DataError(f"labels: expected at least 2 labelled samples, to hold some out, got {len(rows)}")
    # Drawn by rank, so that the order of the data does not matter. Not balanced by class: the held-out part would
    # share the chance deviations of the class frequencies, and free intercepts would look better than they are.
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)) % min(_FOLDS, len(rows))
    fold = torch.empty_like(labels)
    fold[nll(rows, labels).argsort(stable=True)] = drawn.to(fold)
    tied = [(strength, strength) for strength in _GRID]
    losses = _held_out(family, rows, labels, fold, tied)
    chosen = _choose(losses)
    if chosen == _NONE:
        return chosen
    apart = [(chosen[0], strength) for strength in _GRID if strength != chosen[0]]
    again = _held_out(family, rows, labels, fold, apart)
    return _choose({_NONE: again[_NONE], chosen: losses[chosen], **again})


def _choose(losses: dict[tuple[float, float], Tensor]) -> tuple[float, float]:
    """The first whose loss is near the least, by the error of the paired differences, and not above the first's."""
    first = next(iter(losses))
    least = min(losses.values(), key=lambda loss: float(loss.mean()))
    for strengths, loss in losses.items():
        excess = loss - least
        error = float(excess.std()) / math.sqrt(len(excess))
        if float(excess.mean()) <= _ERRORS * error and float(loss.mean()) <= float(losses[first].mean()):
            return strengths
    return first


def _held_out(
    family: Family, rows: Tensor, labels: Tensor, fold: Tensor, pairs: Sequence[tuple[float, float]]
) -> dict[tuple[float, float], Tensor]:
    """NLL of each sample when it was held out: of temperature scaling, then of each pair of strengths."""
    losses = {pair: rows.new_empty(len(rows)) for pair in (_NONE, *pairs)}
    for k in range(int(fold.max()) + 1):
        kept, held = fold != k, fold == k
        scale = temperature.fit(rows[kept], labels[kept]).temperature
        train, test, truth = rows[kept] / scale, rows[held] / scale, labels[held]
        losses[_NONE][held] = nll(test, truth)
        parameters = family.identity(rows.shape[1]).to(rows)
        for pair in pairs:  # each starts where the one before ended
            precisions = family.precisions(rows.shape[1], *pair).to(rows)
            parameters = minimise(family, train, labels[kept], precisions, start=parameters, tolerance=_LOOSE)
            losses[pair][held] = nll(family.apply(test, parameters), truth)
    return losses
