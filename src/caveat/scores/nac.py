"""Neuron activation coverage: how often in-distribution data brought each neuron into the state it is in now."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caveat.scores.moments import check
from caveat.scores.pooled import mean
from caveat.types import Labels, Logits, Look, Score

__all__ = ["Coverage", "CoverageProbe", "fit", "probe"]


@dataclass(frozen=True)
class CoverageProbe:
    """A probe: each neuron's activation times its gradient, squashed to (0, 1)."""

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    steepness: float
    graph: bool = True

    def __call__(self, look: Look) -> Float[Tensor, "n k"]:
        """One backward pass to the layers."""
        loss = -look.logits.log_softmax(dim=1).mean(dim=1).sum()  # divergence from uniform, up to a constant
        found = [look.activations[name] for name in self.layers]
        gradients = torch.autograd.grad(loss, found, retain_graph=True)
        states = [mean(a * g) for a, g in zip(found, gradients, strict=True)]
        return torch.sigmoid(self.steepness * torch.cat(states, dim=1))


def probe(activations: Mapping[str, Tensor], *, steepness: float = 100.0) -> CoverageProbe:
    """The probe for these layers, whose outputs on a few inputs are given."""
    sizes = tuple(mean(found).shape[1] for found in activations.values())
    return CoverageProbe(tuple(activations), sizes, steepness)


@dataclass(frozen=True)
class Coverage:
    """A fitted score, in [-l, 0] for l layers."""

    edges: Float[Tensor, " e"]
    covered: Float[Tensor, "k b"]
    """For every neuron and state, min(count / enough, 1)."""
    sizes: tuple[int, ...]

    def __call__(self, probed: Float[Tensor, "n k"], logits: Logits) -> Score:
        """One look-up per neuron."""
        states = torch.bucketize(probed, self.edges)
        found = self.covered.gather(1, states.T).T
        return -sum((part.mean(dim=1) for part in found.split(list(self.sizes), dim=1)), probed.new_zeros(len(probed)))


def fit(
    probed: Float[Tensor, "n k"],
    logits: Logits,
    labels: Labels,
    probe: CoverageProbe,
    *,
    bins: int = 50,
    enough: int = 50,
) -> Coverage:
    """Count how often in-distribution data bring each neuron into each of `bins` states; `enough` visits count as
    covered.

    Needs a backward pass for every batch. Formula: -sum over layers of the mean over neurons of
    min(count(state)/enough, 1), the state of a neuron being sigmoid(a z dKL(u || p)/dz), in bins that are dense near 0
    and 1.

    Raises
    ------
    DataError
        If the set is empty, the lengths differ, or a number is NaN or infinite.

    Source: Liu et al., Neuron Activation Coverage: Rethinking Out-of-distribution Detection and Generalization,
    ICLR 2024 (arXiv 2306.02879).
    """
    check(probed, labels)
    half = torch.logspace(-6, torch.log10(torch.tensor(0.5)).item(), bins // 2 + 1, dtype=torch.float64)
    edges = torch.cat([half[1:], 1 - half.flip(0)[1:-1]]).to(probed)
    states = torch.bucketize(probed, edges)
    place = states + (len(edges) + 1) * torch.arange(probed.shape[1], device=probed.device)
    counts = torch.bincount(place.flatten(), minlength=probed.shape[1] * (len(edges) + 1)).view(probed.shape[1], -1)
    return Coverage(edges, (counts / enough).clamp_max(1).to(probed.dtype), probe.sizes)
