"""Energy, guided by the energies of the nearest in-distribution features."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.once import shared
from caveat.sampling import thinned
from caveat.scores.knn import CHUNK, bank_of, in_chunks, nearness
from caveat.scores.moments import check
from caveat.types import Features, Head, Labels, Score

__all__ = ["NearestNeighbourGuide", "fit"]


@dataclass(frozen=True)
class NearestNeighbourGuide:
    """A fitted score, in (-inf, inf)."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    bank: Float[Tensor, "m d"]
    """Known features, each of length 1."""
    energies: Float[Tensor, " m"]
    """Of each."""
    k: int

    def __call__(self, features: Features) -> Score:
        """m x d products a sample, in chunks."""
        return in_chunks(self._chunk, features, CHUNK)

    def _chunk(self, features: Tensor) -> Tensor:
        guided = shared(nearness, features, self.bank) * self.energies
        guidance = guided.topk(self.k, dim=1, sorted=False).values.mean(dim=1)
        return -guidance * torch.logsumexp(features @ self.weight.T + self.bias, dim=1)


def fit(features: Features, labels: Labels, head: Head, *, k: int = 10, limit: int = 50_000) -> NearestNeighbourGuide:
    """Keep in-distribution features times their energy as a bank (at most `limit` of them, evenly spread).

    Joins what neighbours and what logits know. Costs m x d products a sample. Formula: -E(x) mean over the k nearest z
    of E(z) cos(x, z), with E = logsumexp of the logits and nearness by that same product.

    Raises
    ------
    OptionError
        If the bank has fewer than `k` samples or `k` is not positive.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Park et al., Nearest Neighbor Guidance for Out-of-Distribution Detection, ICCV 2023 (arXiv 2309.14888).
    """
    check(features, labels)
    bank = shared(bank_of, features, limit)
    if not 1 <= k <= len(bank):
        raise OptionError(f"k: expected a number of neighbours in [1, {len(bank)}] (the bank's size), got {k}")
    weight, bias = head
    energies = torch.logsumexp(thinned(features, limit) @ weight.T + bias, dim=1)
    return NearestNeighbourGuide(weight, bias, bank, energies, k)
