"""The regularised likelihood of a calibration that is linear in its parameters, and its minimum."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Family", "minimise", "nll"]


@dataclass(frozen=True)
class Family:
    """A map of rows `(n, c)` to logits that is linear in its parameters."""

    apply: Callable[[Tensor, Tensor], Tensor]
    """Rows and parameters to logits."""
    back: Callable[[Tensor, Tensor], Tensor]
    """Its adjoint: rows and `(n, c)` to the shape of the parameters."""
    identity: Callable[[int], Tensor]
    """The parameters, for c classes, that give the rows back."""
    precisions: Callable[[int, float, float], Tensor]
    """For c classes and the strengths of weights and intercept: the prior precision of each parameter."""


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each sample."""
    return -logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)


def minimise(
    family: Family, rows: Tensor, labels: Tensor, precisions: Tensor, *, start: Tensor, tolerance: float
) -> Tensor:
    """Minimise `mean NLL + Σ precision · (parameter - identity)² / 2n`, which is strictly convex.

    Newton steps, solved by conjugate gradients (no Hessian is stored, so a hundred classes are no obstacle), with
    backtracking; until the gradient, scaled by the diagonal of the Hessian, is as short as `tolerance`.
    """
    centre, weights = family.identity(rows.shape[1]).to(rows), precisions / len(rows)

    def value(parameters: Tensor, logits: Tensor) -> float:
        return float(nll(logits, labels).mean() + (weights * (parameters - centre) ** 2).sum() / 2)

    parameters, logits, before = start, family.apply(rows, start), math.inf
    current = value(parameters, logits)
    for _ in range(100):
        gradient, curvature, diagonal = _derivatives(family, rows, labels, logits, weights)
        gradient = gradient + weights * (parameters - centre)
        length = math.sqrt(float((gradient**2 / diagonal).sum()))
        if length <= tolerance or (length < 1e-6 and length >= before):  # the latter: rounding ends it
            break
        step = _conjugate_gradients(curvature, -gradient, diagonal, tolerance=min(0.1, length) * length)
        slope, size, moved = float((gradient * step).sum()), 1.0, family.apply(rows, step)
        rounding = 1e-14 * max(1.0, abs(current))
        while (proposed := value(parameters + size * step, logits + size * moved)) > (
            current + 1e-4 * size * slope + rounding
        ):
            size /= 2
            if size < 1e-12:  # the direction is rounding: there is no lower place that can be seen
                return parameters
        parameters, logits, current, before = parameters + size * step, logits + size * moved, proposed, length
    return parameters


def _derivatives(
    family: Family, rows: Tensor, labels: Tensor, logits: Tensor, weights: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor], Tensor]:
    """Gradient of the mean NLL; the Hessian of it and the penalty, as a product; the diagonal of that Hessian."""
    n, p = len(rows), logits.softmax(dim=1)
    residual = p.scatter_add(1, labels[:, None], p.new_full((n, 1), -1.0))

    def curvature(direction: Tensor) -> Tensor:
        change = p * family.apply(rows, direction)
        change = change - p * change.sum(dim=1, keepdim=True)
        return family.back(rows, change) / n + weights * direction

    return family.back(rows, residual) / n, curvature, family.back(rows**2, p * (1 - p)) / n + weights


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, *, tolerance: float
) -> Tensor:
    """Solve `product(x) = target`, preconditioned by the diagonal."""
    solution, left = torch.zeros_like(target), target
    scaled = left / diagonal
    direction, length = scaled, float((left * scaled).sum())
    for _ in range(2 * target.numel()):
        if length <= tolerance**2:
            break
        image = product(direction)
        bend = float((direction * image).sum())
        if bend <= 0:  # rounding: the Hessian is positive
            break
        size = length / bend
        solution, left = solution + size * direction, left - size * image
        scaled = left / diagonal
        before, length = length, float((left * scaled).sum())
        direction = scaled + (length / before) * direction
    return solution
