"""Distance to the k-th nearest neighbour among in-distribution features."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from caveat.errors import OptionError
from caveat.once import shared
from caveat.sampling import thinned
from caveat.scores.moments import check
from caveat.types import Features, Labels, Score

__all__ = ["NearestNeighbours", "bank_of", "fit", "in_chunks", "nearness"]

CHUNK = 1024


def in_chunks(score: Callable[[Tensor], Tensor], features: Features, size: int) -> Score:
    """The scores of all samples, `size` at a time, so that memory stays small; in an exported graph, which knows no
    number of samples, of all at once.
    """
    if torch.compiler.is_exporting() or len(features) <= size:
        return score(features)
    return torch.cat([score(part) for part in features.split(size)])


def bank_of(features: Features, limit: int) -> Float[Tensor, "m d"]:
    """At most `limit` of the features, evenly spread, each of length 1."""
    return normalize(thinned(features, limit), dim=1)


def nearness(features: Features, bank: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosine to every row of the bank: what the search costs, shared by the scores that search the same one."""
    return normalize(features, dim=1) @ bank.T


@dataclass(frozen=True)
class NearestNeighbours:
    """A fitted score: distance between unit vectors, in [0, 2]."""

    bank: Float[Tensor, "m d"]
    """Known features, each of length 1."""
    k: int

    def __call__(self, features: Features) -> Score:
        """Distance to the k-th neighbour; m x d products a sample, in chunks, so that memory stays small."""
        return in_chunks(self._chunk, features, CHUNK)

    def _chunk(self, features: Tensor) -> Tensor:
        unit = normalize(features, dim=1)
        # the half squares order a feature of length 0 among the others too
        near = shared(nearness, features, self.bank) - 0.5 * self.bank.square().sum(dim=1)
        kth = near.topk(self.k, dim=1).indices[:, -1]
        distance = (unit - self.bank[kth]).norm(dim=1)  # the root of 2 - 2 cos would keep half the digits only
        # the same input in another batch differs by rounding: it is at distance 0, or a threshold would split ties
        return torch.where(distance > 16 * torch.finfo(distance.dtype).eps, distance, 0.0)


def fit(features: Features, labels: Labels, *, k: int | None = None, limit: int = 50_000) -> NearestNeighbours:
    """Keep in-distribution features as a bank (at most `limit` of them, evenly spread).

    Assumes nothing about the shape of the clusters; the bank weighs m x d numbers and the search m x d products per
    sample. Features are scaled to length 1. Formula: || x - x_(k) ||, x_(k) the k-th nearest of the bank. Default k:
    50, or a tenth of a bank of fewer than 500, but at most a quarter of its smallest class: beyond its size every
    sample of that class has its k-th neighbour in another.

    Raises
    ------
    OptionError
        If the bank has fewer than `k` samples or `k` is not positive.
    DataError
        If the set is empty, the lengths differ, or a feature is NaN or infinite.

    Source: Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022 (arXiv 2204.06507).
    """
    check(features, labels)
    bank = shared(bank_of, features, limit)
    if k is None:
        smallest = int(thinned(labels, limit).unique(return_counts=True)[1].min())
        k = max(1, min(50, len(bank) // 10, smallest // 4))
    if not 1 <= k <= len(bank):
        raise OptionError(f"k: expected a number of neighbours in [1, {len(bank)}] (the bank's size), got {k}")
    return NearestNeighbours(bank, k)
