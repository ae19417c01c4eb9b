"""Matrix scaling: a linear map of the logits, its off-diagonal and intercept held near zero."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check, _regularised
from caveat.calibration._newton import Family

__all__ = ["FAMILY", "Matrix", "fit"]


@dataclass(frozen=True)
class Matrix:
    """Logits mapped linearly; the most probable class may change."""

    weight: Float[Tensor, "c c"]
    shift: Float[Tensor, " c"]
    strengths: tuple[float, float]
    """Of the regularisation of off-diagonal and intercept; infinite where the temperature alone was preferred."""

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """`weight @ logits + shift`, computed in float64, in the dtype of the logits."""
        rows = logits.movedim(1, -1).double() @ self.weight.double().T + self.shift.double()
        return rows.movedim(-1, 1).to(logits.dtype)


def fit(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    strengths: tuple[float, float] | None = None,
    seed: int = 0,
    void: int | None = None,
) -> Matrix:
    """Find the matrix W and the shift b that make held-out softmax(W z + b) fit the labels best.

    For networks that confuse some classes more than they say. c² + c parameters: unregularised, a few hundred samples
    ruin it (the NLL of a rival rises tenfold), so it minimises the convex function

        mean NLL + (λ Σ_{i≠j} (T W_ij)² + λ/10 Σ_i (T W_ii - 1)² + μ Σ_i b_i²) / 2n

    with T the temperature of `calibration.temperature`: without data to say otherwise it is temperature scaling. The
    strengths (λ, μ) are chosen among 1 to 10,000 and infinity (the temperature alone) by 5-fold cross-validation, as
    the strongest within two standard errors of the best. Newton's method with conjugate gradients in float64, to a
    gradient of 1e-11; 10,000 samples of 10 classes take 1 to 3 seconds and 5,000 of 100 classes 10 to 30, nearly all of
    it cross-validation. Memory: about ten arrays like the logits, in float64.

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

    References
    ----------
    C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2. Regularisation of off-diagonal
    and intercept (ODIR): M. Kull et al., Beyond temperature scaling, NeurIPS 2019, section 3; theirs leaves the
    diagonal free.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(50, 1)
    >>> g = fit(logits, torch.tensor([1, 0]).repeat(50), strengths=(0.1, 0.1))  # the network swaps its two classes
    >>> g(logits[:2]).argmax(dim=1)
    tensor([1, 0])
    """
    rows, kept = _check.labelled_rows(logits, labels, void=void)
    found = _regularised.fit(FAMILY, rows, kept, strengths=strengths, seed=seed)
    return Matrix(found.parameters[:, :-1] / found.temperature, found.parameters[:, -1], found.strengths)


def _apply(rows: Tensor, parameters: Tensor) -> Tensor:
    return rows @ parameters[:, :-1].T + parameters[:, -1]


def _back(rows: Tensor, residual: Tensor) -> Tensor:
    return torch.cat((residual.T @ rows, residual.sum(dim=0)[:, None]), dim=1)


def _identity(classes: int) -> Tensor:
    return torch.eye(classes, classes + 1)


def _precisions(classes: int, weight: float, intercept: float) -> Tensor:
    square = torch.full((classes, classes), weight, dtype=torch.float64)
    # The diagonal is freer, but not free: a class that is never wrong would drive its scale to infinity.
    square.fill_diagonal_(weight / 10)
    return torch.cat((square, torch.full((classes, 1), intercept, dtype=torch.float64)), dim=1)


FAMILY = Family(_apply, _back, _identity, _precisions)
