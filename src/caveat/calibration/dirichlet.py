"""Dirichlet calibration: a linear map of the log-probabilities, its off-diagonal and intercept held near zero."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from caveat.calibration import _check, _regularised
from caveat.calibration.matrix import FAMILY

__all__ = ["Dirichlet", "fit"]


@dataclass(frozen=True)
class Dirichlet:
    """Log-probabilities mapped linearly; the most probable class may change."""

    weight: Float[Tensor, "c c"]
    shift: Float[Tensor, " c"]
    strengths: tuple[float, float]
    """Of the regularisation of off-diagonal and intercept; infinite where the temperature alone was preferred."""

    def __call__(self, logits: Float[Tensor, "n c *pixels"]) -> Float[Tensor, "n c *pixels"]:
        """`weight @ log_softmax(logits) + shift`, computed in float64, in the dtype of the logits."""
        log_probs = logits.movedim(1, -1).double().log_softmax(dim=-1)
        return (log_probs @ self.weight.double().T + self.shift.double()).movedim(-1, 1).to(logits.dtype)


def fit(
    logits: Float[Tensor, "n c *pixels"],
    labels: Int[Tensor, "n *pixels"],
    *,
    strengths: tuple[float, float] | None = None,
    seed: int = 0,
    void: int | None = None,
) -> Dirichlet:
    """Find the matrix W and the shift b that make held-out softmax(W log p + b) fit the labels best, p = softmax(z).

    Matrix scaling that sees probabilities only, so that a constant added to all logits of a sample changes nothing;
    it is what the labels' distribution would be if the probabilities of each class were Dirichlet distributed. When
    to use it, its regularisation, the choice of the strengths and the cost are those of `calibration.matrix`:

        mean NLL + (λ Σ_{i≠j} (T W_ij)² + λ/10 Σ_i (T W_ii - 1)² + μ Σ_i b_i²) / 2n

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
    M. Kull et al., Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with Dirichlet
    calibration, NeurIPS 2019, section 3 (linear parametrisation and ODIR; theirs leaves the diagonal free).

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(50, 1)
    >>> g = fit(logits, torch.tensor([0, 1]).repeat(50), strengths=(1.0, 1.0))
    >>> torch.allclose(g(logits + 7), g(logits), atol=1e-5)
    True
    """
    rows, kept = _check.labelled_rows(logits, labels, void=void)
    found = _regularised.fit(FAMILY, rows.double().log_softmax(dim=1), kept, strengths=strengths, seed=seed)
    return Dirichlet(found.parameters[:, :-1] / found.temperature, found.parameters[:, -1], found.strengths)
