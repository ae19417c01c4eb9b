"""Vector scaling: a scale and a shift for each class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check, _regularised
from caveat.calibration._newton import Family

__all__ = ["Vector", "fit"]


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


def fit(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    strengths: tuple[float, float] | None = None,
    seed: int = 0,
    void: int | None = None,
) -> Vector:
    """Find the scale w_k and the shift b_k of each class that make held-out softmax(w ∘ z + b) fit the labels best.

    For networks that are sure of some classes and unsure of others, or that were trained on other class frequencies;
    2c parameters, so hundreds of samples a class to gain from it. It minimises the convex function

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

    References
    ----------
    C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2 (without regularisation).

    Examples
    --------
    >>> logits = torch.zeros(40, 2)  # the network has no idea; the labels are of class 0 in three of four
    >>> g = fit(logits, torch.tensor([0, 0, 0, 1]).repeat(10), strengths=(1.0, 1e-9))
    >>> g(logits)[0].softmax(dim=0)
    tensor([0.7500, 0.2500])
    """
    rows, kept = _check.labelled_rows(logits, labels, void=void)
    found = _regularised.fit(_FAMILY, rows, kept, strengths=strengths, seed=seed)
    return Vector(found.parameters[0] / found.temperature, found.parameters[1], found.strengths)


def _apply(rows: Tensor, parameters: Tensor) -> Tensor:
    return rows * parameters[0] + parameters[1]


def _back(rows: Tensor, residual: Tensor) -> Tensor:
    return torch.stack(((residual * rows).sum(dim=0), residual.sum(dim=0)))


def _identity(classes: int) -> Tensor:
    return torch.stack((torch.ones(classes), torch.zeros(classes)))


def _precisions(classes: int, weight: float, intercept: float) -> Tensor:
    return torch.tensor([[weight], [intercept]], dtype=torch.float64).expand(2, classes)


_FAMILY = Family(_apply, _back, _identity, _precisions)
