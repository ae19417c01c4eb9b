"""ReAct: energy after large activations are cut off."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.sampling import thinned
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["RectifiedActivations", "fit", "quantile"]


@dataclass(frozen=True)
class RectifiedActivations:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    threshold: float

    def __call__(self, features: Features) -> Score:
        """c products of length d a sample."""
        return -torch.logsumexp(features.clamp_max(self.threshold) @ self.weight.T + self.bias, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, share: float = 0.9) -> RectifiedActivations:
    """Fit the cut-off: a quantile of all activations of in-distribution data.

    For networks whose foreign inputs excite a few units strongly. Formula: -logsumexp(W min(x, t) + b), t the
    quantile at `share` over samples and features.

    Raises
    ------
    OptionError
        If `share` is not in (0, 1].
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Sun et al., ReAct: Out-of-distribution Detection With Rectified Activations, NeurIPS 2021
    (arXiv 2111.12797).
    """
    check(features, labels)
    if not 0 < share <= 1:
        raise OptionError(f"share: expected a number in (0, 1], got {share}")
    return RectifiedActivations(*head, quantile(features, share))


def quantile(features: Tensor, share: float, *, limit: int = 2**24) -> float:
    """Quantile over all entries, linearly interpolated; of more than `limit` entries evenly spread rows are taken."""
    flat = thinned(features, max(1, limit // features.shape[1])).flatten().double()
    position = share * (len(flat) - 1)
    low = int(position)
    first = flat.kthvalue(low + 1).values
    if position == low:
        return float(first)
    return float(first + (position - low) * (flat.kthvalue(low + 2).values - first))
