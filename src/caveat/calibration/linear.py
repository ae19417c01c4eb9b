"""Linear calibrations: vector scaling, matrix scaling and Dirichlet calibration, held near temperature scaling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check, _regularised
from caveat.calibration._newton import Family

__all__ = ["Matrix", "Vector", "dirichlet", "matrix", "vector"]


@dataclass(frozen=True)
class Vector:
    """Logits scaled and shifted class by class; the most probable class may change."""

    scale: Float[Tensor, " c"]
    shift: Float[Tensor, " c"]
    strengths: tuple[float, float]
    """Of the regularisation of scales and shifts; infinite where cross-validation preferred the temperature alone."""

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """`scale · logits + shift`, computed in float64, in the dtype of the logits."""
        rows = logits.movedim(1, -1).double() * self.scale.double() + self.shift.double()
        return rows.movedim(-1, 1).to(logits.dtype)


@dataclass(frozen=True)
class Matrix:
    """Logits or log-probabilities mapped linearly; the most probable class may change."""

    weight: Float[Tensor, "c c"]
    shift: Float[Tensor, " c"]
    strengths: tuple[float, float]
    """Of the regularisation of off-diagonal and intercept; infinite where the temperature alone was preferred."""
    of_probabilities: bool
    """Whether the map is of log-probabilities (Dirichlet calibration), not of the logits as they are."""

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """`weight @ z + shift` of logits or log-probabilities z, computed in float64, in the dtype of the logits."""
        rows = logits.movedim(1, -1).double()
        rows = rows.log_softmax(dim=-1) if self.of_probabilities else rows
        return (rows @ self.weight.double().T + self.shift.double()).movedim(-1, 1).to(logits.dtype)


def vector(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    strengths: tuple[float, float] | None = None,
    seed: int = 0,
    void: int | None = None,
) -> Vector:
    """Vector scaling: a scale and a shift for each class.

    For networks that are confident of some classes and not of others, or that were trained on other class frequencies;
    2c parameters, so hundreds of samples a class to gain from it. Formula: the scales w and shifts b of
    softmax(w ∘ z + b) minimise the convex function

        mean NLL + (λ Σ_k (T w_k - 1)² + μ Σ_k b_k²) / 2n

    with T the temperature of `calibration.temperature`: without data to say otherwise it is temperature scaling. The
    strengths (λ, μ) are chosen among 1 to 10,000 and infinity (the temperature alone) by 5-fold cross-validation, as
    the strongest within two standard errors of the best. Newton's method in float64, to a gradient of 1e-11; 10,000
    samples of 10 classes take 1 to 2 seconds, nearly all of it cross-validation.

    Parameters
    ----------
    logits: classes on axis 1, any floating dtype.
    labels: 0 to c - 1; `void` marks those that have no label and are left out.
    strengths: λ and μ, positive, if they are known: precisions of a Gaussian prior, in units of tempered logits.
    seed: draws the folds; the order of the data does not.

    Raises
    ------
    DataError
        If a logit is not finite, shapes do not match, a label is out of range, or fewer than 2 are labelled.
    OptionError
        If a strength is not positive.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2 (without regularisation).

    Examples
    --------
    >>> logits = torch.zeros(40, 2)  # the network has no idea; the labels are of class 0 in three of four
    >>> g = vector(logits, torch.tensor([0, 0, 0, 1]).repeat(10), strengths=(1.0, 1e-9))
    >>> g(logits)[0].softmax(dim=0)
    tensor([0.7500, 0.2500])
    """
    found = _found("vector", logits, labels, strengths, seed, void)
    return Vector(found.parameters[0] / found.temperature, found.parameters[1], found.strengths)


def matrix(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    strengths: tuple[float, float] | None = None,
    seed: int = 0,
    void: int | None = None,
) -> Matrix:
    """Matrix scaling: a linear map of the logits, its off-diagonal and intercept held near zero.

    For networks that confuse some classes more than they predict. c² + c parameters: unregularised, a few hundred
    samples ruin it (the NLL of TorchUncertainty's rises tenfold). Formula: W and b of softmax(W z + b) minimise the
    convex function

        mean NLL + (λ Σ_{i≠j} (T W_ij)² + λ/10 Σ_i (T W_ii - 1)² + μ Σ_i b_i²) / 2n

    with T, and the strengths (λ, μ) chosen, as in `vector`. Newton's method with conjugate gradients in float64, to a
    gradient of 1e-11; 10,000 samples of 10 classes take 1 to 3 seconds and 5,000 of 100 classes 10 to 30, nearly all of
    it cross-validation. Memory: about ten arrays like the logits, in float64.

    Parameters and errors are those of `vector`.

    Source: C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2. Regularisation of
    off-diagonal and intercept (ODIR): M. Kull et al., Beyond temperature scaling, NeurIPS 2019, section 3; theirs
    leaves the diagonal free.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(50, 1)
    >>> g = matrix(logits, torch.tensor([1, 0]).repeat(50), strengths=(0.1, 0.1))  # the network swaps its two classes
    >>> g(logits[:2]).argmax(dim=1)
    tensor([1, 0])
    """
    found = _found("matrix", logits, labels, strengths, seed, void)
    return Matrix(found.parameters[:, :-1] / found.temperature, found.parameters[:, -1], found.strengths, False)


def dirichlet(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    strengths: tuple[float, float] | None = None,
    seed: int = 0,
    void: int | None = None,
) -> Matrix:
    """Dirichlet calibration: a linear map of the log-probabilities, its off-diagonal and intercept held near zero.

    Matrix scaling that sees probabilities p = softmax(z) only, so that a constant added to all logits of a sample
    changes nothing. Formula: softmax(W log p + b); it is what the labels' distribution would be if the probabilities of
    each class were Dirichlet distributed. When to use it, what it minimises, the choice of the strengths, the cost, the
    parameters and the errors are those of `matrix`.

    Source: M. Kull et al., Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with
    Dirichlet calibration, NeurIPS 2019, section 3 (linear parametrisation and ODIR; theirs leaves the diagonal free).

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(50, 1)
    >>> g = dirichlet(logits, torch.tensor([0, 1]).repeat(50), strengths=(1.0, 1.0))
    >>> torch.allclose(g(logits + 7), g(logits), atol=1e-5)
    True
    """
    found = _found("dirichlet", logits, labels, strengths, seed, void)
    return Matrix(found.parameters[:, :-1] / found.temperature, found.parameters[:, -1], found.strengths, True)


def _found(
    name: str, logits: Tensor, labels: Tensor, strengths: tuple[float, float] | None, seed: int, void: int | None
) -> _regularised.Found:
    family, seen = _KINDS[name]
    rows, kept = _check.labelled_rows(logits, labels, void=void)
    return _regularised.fit(family, seen(rows.double()), kept, strengths=strengths, seed=seed)


def _scaled(rows: Tensor, parameters: Tensor) -> Tensor:
    return rows * parameters[0] + parameters[1]


def _scaled_back(rows: Tensor, residual: Tensor) -> Tensor:
    return torch.stack(((residual * rows).sum(dim=0), residual.sum(dim=0)))


def _ones(classes: int) -> Tensor:
    return torch.stack((torch.ones(classes), torch.zeros(classes)))


def _scale_precisions(classes: int, weight: float, intercept: float) -> Tensor:
    return torch.tensor([[weight], [intercept]], dtype=torch.float64).expand(2, classes)


def _mapped(rows: Tensor, parameters: Tensor) -> Tensor:
    return rows @ parameters[:, :-1].T + parameters[:, -1]


def _mapped_back(rows: Tensor, residual: Tensor) -> Tensor:
    return torch.cat((residual.T @ rows, residual.sum(dim=0)[:, None]), dim=1)


def _identity(classes: int) -> Tensor:
    return torch.eye(classes, classes + 1)


def _map_precisions(classes: int, weight: float, intercept: float) -> Tensor:
    square = torch.full((classes, classes), weight, dtype=torch.float64)
    # The diagonal is freer, but not free: a class that is never wrong would drive its scale to infinity.
    square.fill_diagonal_(weight / 10)
    return torch.cat((square, torch.full((classes, 1), intercept, dtype=torch.float64)), dim=1)


def _as_they_are(rows: Tensor) -> Tensor:
    return rows


def _log_probabilities(rows: Tensor) -> Tensor:
    return rows.log_softmax(dim=1)


_SCALES = Family(_scaled, _scaled_back, _ones, _scale_precisions)
_MAPS = Family(_mapped, _mapped_back, _identity, _map_precisions)
_KINDS: Mapping[str, tuple[Family, Callable[[Tensor], Tensor]]] = {
    "vector": (_SCALES, _as_they_are),
    "matrix": (_MAPS, _as_they_are),
    "dirichlet": (_MAPS, _log_probabilities),
}
"""Which map is fitted, and of what."""
