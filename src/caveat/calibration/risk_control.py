"""Conformal risk control: label sets that miss no larger a share of the true labels, on average, than was asked for."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caveat.calibration._rank import exact_share
from caveat.errors import DataError

__all__ = ["RiskControl", "fewest", "fit", "of_true"]


SLACK = 1e-9
"""In samples: three thirds of a sample are one."""


@dataclass(frozen=True)
class RiskControl:
    """All labels whose probability is high enough."""

    threshold: Float[Tensor, ""]
    """Float64; 0 where the samples were too few: all labels."""

    def __call__(self, probs: Float[Tensor, "n c"]) -> Bool[Tensor, "n c"]:
        """True for the labels of each sample's set, which may be empty."""
        return probs.double() >= self.threshold


def fit(probs: Float[Tensor, "n c"], labels: Bool[Tensor, "n c"], *, error: float = 0.1) -> RiskControl:
    """The largest threshold at which the expected share of a sample's true labels that is missed is at most `error`.

    On samples that the network was not trained on and that are exchangeable with those to come, whatever the network.
    The promise is of samples that have a label; of others nothing can be missed, and they are not counted. It is of the
    mean over samples and inputs, not for each label. Formula: L_i(λ) = |{k in Y_i: p_ik < λ}|/|Y_i|, the share missed;
    λ the largest with n/(n + 1) mean_i L_i(λ) + 1/(n + 1) <= error; the set {k: p_k >= λ}.

    Raises
    ------
    DataError
        If a probability is not in [0, 1], shapes differ, or no sample has a label.
    OptionError
        If `error` is not in (0, 1).

    Source: A. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster, Conformal risk control, ICLR 2024, equation 4 and
    theorem 1; section 4.1 (false negatives of labels).

    Examples
    --------
    >>> p = torch.tensor([[0.9, 0.2], [0.8, 0.6], [0.7, 0.1]])
    >>> y = torch.tensor([[True, False], [True, True], [True, False]])
    >>> g = fit(p, y, error=0.4)  # at 0.7 half of the second's labels are missed: 3/4 (0.5/3) + 1/4 = 0.375
    >>> round(g.threshold.item(), 6), g(torch.tensor([[0.75, 0.4]])).tolist()
    (0.7, [[True, False]])
    """
    if probs.ndim != 2 or probs.shape != labels.shape:
        raise DataError(f"labels: expected one for each of probs (n, c), got {tuple(labels.shape)}")
    wide = probs.double()
    if not bool(((wide >= 0) & (wide <= 1)).all()):
        raise DataError("probs: expected probabilities in [0, 1], got others; of logits take torch.sigmoid")
    return of_true(wide[labels], labels.nonzero()[:, 0], error=error)


def of_true(probs: Float[Tensor, " t"], samples: Int[Tensor, " t"], *, error: float) -> RiskControl:
    """The same from the probabilities of the true labels alone, and the number of the sample that each belongs to.

    Raises
    ------
    DataError
        If there is none.
    OptionError
        If `error` is not in (0, 1).
    """
    if not len(probs):
        raise DataError("labels: expected samples that have a label, got none: nothing can be missed")
    _, place, sizes = samples.unique(return_inverse=True, return_counts=True)
    true, order = probs.double().sort()
    before = torch.cat([true.new_zeros(1), (1 / sizes.double()[place])[order].cumsum(0)])
    missed = before[torch.searchsorted(true, true)]  # at each as threshold: what is strictly below it
    allowed = float(exact_share("error", error) * (len(sizes) + 1) - 1)
    held = true[missed <= allowed + SLACK]
    return RiskControl(held[-1] if allowed >= 0 else true.new_zeros(()))


def fewest(error: float) -> int:
    """The least number of samples with labels from which on more than "all labels" can be promised.

    >>> fewest(0.1), fewest(0.3)
    (9, 3)
    """
    exact = 1 / exact_share("error", error) - 1
    return -(-exact.numerator // exact.denominator)
