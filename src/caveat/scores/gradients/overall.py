"""Scores that look at all parameters together: columns of what the probe gives."""

from jaxtyping import Float
from torch import Tensor

from caveat.scores.gradients.moments import STATISTICS
from caveat.types import Score

__all__ = ["l1", "l2", "largest", "smallest", "uncertainty"]


def l1(probed: Float[Tensor, "n k"]) -> Score:
    """L1 norm of the gradient of the loss at the predicted class, over all parameters.

    Needs a backward pass for every batch. In [0, inf). Formula: ||d(-log max p)/dw||_1.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 2.
    """
    return _over_all(probed, "l1")


def l2(probed: Float[Tensor, "n k"]) -> Score:
    """Euclidean norm of the gradient of the loss at the predicted class, over all parameters.

    Needs a backward pass for every batch. In [0, inf). Formula: ||d(-log max p)/dw||_2.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 2.
    """
    return _over_all(probed, "l2")


def largest(probed: Float[Tensor, "n k"]) -> Score:
    """Largest entry of the gradient of the loss at the predicted class, over all parameters.

    Needs a backward pass for every batch. In [0, inf) for all but odd networks. Formula: max d(-log max p)/dw.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 2.
    """
    return _over_all(probed, "max")


def smallest(probed: Float[Tensor, "n k"]) -> Score:
    """Minus the smallest entry of the gradient of the loss at the predicted class, over all parameters.

    Needs a backward pass for every batch. In [0, inf) for all but odd networks. Formula: -min d(-log max p)/dw.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 2.
    """
    return -_over_all(probed, "min")


def uncertainty(probed: Float[Tensor, "n k"]) -> Score:
    """Minus the Euclidean norm of the gradient towards the uniform answer, over all parameters (GradUncertainty).

    Small gradients mean that the answer is uniform already, or its features are small. Needs a backward pass of its own
    for every batch. In (-inf, 0]. The paper squares the norm and counts every class once, which ranks alike. Formula:
    -||d(-mean_k log p_k)/dw||_2.

    Source: Lee and AlRegib, Gradients as a Measure of Uncertainty in Neural Networks, ICIP 2020 (arXiv 2008.08030),
    section 3.
    """
    return -_over_all(probed, "l2")


def _over_all(probed: Float[Tensor, "n k"], statistic: str) -> Score:
    return probed[:, STATISTICS.index(statistic) - len(STATISTICS)]
