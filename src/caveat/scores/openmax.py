"""OpenMax: the probability of a class that is none of the in-distribution ones, by extreme values of the logits'
distances."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.moments import check
from caveat.types import Labels, Logits, Score

__all__ = ["OpenMax", "fit"]

SHIFT = 10_000.0
"""Where the authors' library (libMR) puts the smallest distance of a tail before it fits; numbers depend on it."""


@dataclass(frozen=True)
class OpenMax:
    """A fitted score: probability of `ood`, in [0, 1]."""

    centres: Float[Tensor, "c c"]
    """Mean logits of the correctly answered samples of each class."""
    nearest: Float[Tensor, " c"]
    """Smallest distance of the tail of each class; its distribution begins `SHIFT` below."""
    shape: Float[Tensor, " c"]
    level: Float[Tensor, " c"]
    """shape log(scale / SHIFT) of the Weibull distribution; infinite for a class without one."""
    alpha: int

    def __call__(self, logits: Logits) -> Score:
        """All classes of all samples at once: c x c products a sample."""
        distances = torch.cdist(logits, self.centres, compute_mode="donot_use_mm_for_euclid_dist")
        # Weibull: chance that a known one is nearer; ((d + shift) / scale)^shape by its logarithm, as shape is huge
        beyond = ((distances - self.nearest) / SHIFT).clamp_min(-1)
        outside = -torch.expm1(-torch.exp(self.shape * beyond.log1p() - self.level))
        rank = logits.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        share = ((self.alpha - rank).to(logits.dtype) / self.alpha).clamp_min(0)
        kept = logits * (1 - outside * share)
        ood = (logits - kept).sum(dim=1, keepdim=True)
        return torch.cat([ood, kept], dim=1).softmax(dim=1)[:, 0]


def fit(logits: Logits, labels: Labels, *, tail: int = 25, alpha: int = 10) -> OpenMax:
    """Fit a Weibull distribution to the `tail` largest distances of correct answers from their class's mean logits.

    For open sets of classes; slower to fit than the rest, c x c products a sample to evaluate. Formula: the logit of
    class k, ranked i-th (i < alpha), is multiplied by 1 - w_k (alpha - i)/alpha, w_k the Weibull probability of a
    smaller distance; what is taken away is the logit of the OOD class, and the score its softmax. A class with
    fewer than 3 right answers keeps its logit.

    Raises
    ------
    OptionError
        If `tail` is less than 3 or `alpha` less than 1.
    DataError
        If the set is empty, the lengths differ, or a logit is NaN or infinite.

    Source: Bendale and Boult, Towards Open Set Deep Networks, CVPR 2016 (arXiv 1511.06233).
    """
    check(logits, labels, "logits")
    if tail < 3 or alpha < 1:
        raise OptionError(f"tail, alpha: expected at least 3 and 1, got {tail} and {alpha}")
    classes = logits.shape[1]
    right = logits.argmax(dim=1) == labels
    wide = logits.double()
    centres = torch.zeros(classes, classes, dtype=torch.float64, device=logits.device)
    nearest, shape = torch.zeros(classes).double(), torch.ones(classes).double()
    level = torch.full((classes,), torch.inf).double()
    for label in range(classes):
        own = wide[right & (labels == label)]
        if len(own) < 3:
            continue
        centres[label] = own.mean(dim=0)
        distances = (own - centres[label]).norm(dim=1)
        largest = distances.topk(min(tail, len(own))).values
        nearest[label] = largest[-1]
        shape[label], scale = weibull(largest - largest[-1] + SHIFT)
        level[label] = shape[label] * (scale / SHIFT).log()
    device, dtype = logits.device, logits.dtype
    parts = (part.to(device, dtype) for part in (centres, nearest, shape, level))
    return OpenMax(*parts, alpha=min(alpha, classes))


def weibull(values: Float[Tensor, " m"], *, steps: int = 100) -> tuple[Tensor, Tensor]:
    """Shape and scale of the two-parameter Weibull distribution most likely to give `values` > 0, by Newton's method.

    The shape solves sum x^k log x / sum x^k - 1/k = mean log x; the left side rises with k.
    """
    logs = (values / values.max()).log()
    if not (logs < 0).any():
        return torch.full_like(values[0], 1e9), values.max()  # all equal: as good as a step
    shape = 1.2 / logs.std()
    for _ in range(steps):
        powers = (shape * logs).exp()
        mean = (powers * logs).sum() / powers.sum()
        variance = (powers * logs.square()).sum() / powers.sum() - mean.square()
        step = (mean - 1 / shape - logs.mean()) / (variance + 1 / shape.square())
        shape = torch.maximum(shape - step, shape / 2)
        if step.abs() < 1e-12 * shape:
            break
    return shape, values.max() * (shape * logs).exp().mean().pow(1 / shape)
