"""SWAG: a Gaussian fitted to the weights that training passes through."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.posteriors import foreach
from caveat.posteriors.layers import like, normal, parameters

__all__ = ["Swag", "Tracker", "start"]


@dataclass(frozen=True)
class Swag:
    """Mean, variance of each weight, and the last deviations from the mean."""

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    deviations: dict[str, Tensor]
    """`(k, ...)`; k = 0 is the diagonal Gaussian."""
    scale: float
    """Factor of the whole covariance."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights of one network; one vector of the low-rank part serves all tensors, so that they move together."""
        names = sorted(self.mean)  # a file keeps no order
        first = self.mean[names[0]]
        rank = len(next(iter(self.deviations.values()))) if self.deviations else 0
        shared = normal(first.new_empty(rank), generator)
        drawn: dict[str, Tensor] = {}
        for name in names:
            mean = self.mean[name]
            moved = (self.scale * self.variance[name]).sqrt() * normal(mean, generator)
            if rank > 1:
                low = torch.tensordot(shared.to(mean), self.deviations[name], dims=1)
                moved = moved + (self.scale / (rank - 1)) ** 0.5 * low
            drawn[name] = mean + moved
        return drawn


class Tracker:
    """Collects the weights of a training run, a snapshot every few steps."""

    def __init__(self, *, rank: int, burn_in: int, every: int) -> None:
        self._rank, self._burn_in, self._every = rank, burn_in, every
        self._steps, self._count = 0, 0
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._deviations: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Call after every step of the optimizer."""
        self._steps += 1
        if self._steps <= self._burn_in or (self._steps - self._burn_in - 1) % self._every:
            return
        self._count += 1
        weights = parameters(model)
        if not self._mean:
            self._mean = {name: weight.clone() for name, weight in weights.items()}
            self._squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        else:
            self._mean, self._squares = like(self._mean, weights), like(self._squares, weights)
        names = list(weights)
        now, mean = list(weights.values()), [self._mean[name] for name in names]
        # Welford's recurrence: E[w^2] - E[w]^2 would cancel in float32
        before = foreach.sub(now, mean)
        foreach.add_(mean, before, alpha=1 / self._count)
        after = foreach.sub(now, mean)
        foreach.addcmul_([self._squares[name] for name in names], before, after)
        if self._rank:
            self._deviations = [*self._deviations, dict(zip(names, after, strict=True))][-self._rank :]

    def posterior(self, *, scale: float = 0.5) -> Swag:
        """What was collected, as a Gaussian; the tracker may go on.

        Parameters
        ----------
        scale
            Factor of both parts of the covariance: 0.5 in the paper; 1 for the diagonal Gaussian alone (rank 0).

        Raises
        ------
        OptionError
            If fewer than two snapshots were collected, or `scale` is negative.
        """
        if self._count < 2:
            raise OptionError(f"swag: expected at least 2 snapshots, got {self._count}: lower burn_in or every")
        if scale < 0:
            raise OptionError(f"scale: expected a number of at least 0, got {scale}")
        return Swag(
            mean={name: mean.clone() for name, mean in self._mean.items()},
            variance={name: squares / self._count for name, squares in self._squares.items()},
            deviations={
                name: torch.stack([deviation[name] for deviation in self._deviations])
                for name in (self._mean if self._deviations else ())
            },
            scale=scale,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that was collected."""
        return {
            "steps": self._steps, "count": self._count, "mean": dict(self._mean), "squares": dict(self._squares),
            "deviations": list(self._deviations),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._steps, self._count = state["steps"], state["count"]
        self._mean, self._squares = dict(state["mean"]), dict(state["squares"])
        self._deviations = list(state["deviations"])


def start(model: nn.Module, *, rank: int = 20, burn_in: int = 0, every: int = 100) -> Tracker:
    """Watch a training run, best its last part at a constant learning rate; give the tracker to `training.fit`.

    Cheap where an ensemble is too dear: one training run. Formula: w ~ N(m, scale (diag(v) + D D^T / (k - 1))), m and
    v mean and variance of the snapshots, D the deviations of the last k of them from the running mean, scale 1/2.
    Batch-norm statistics must be renewed for each draw
    (`posteriors.sample(..., batches=...)`).

    Parameters
    ----------
    rank
        Number of deviations kept, in [0, inf); 0 for the diagonal Gaussian.
    burn_in
        Steps of the optimizer before the first snapshot.
    every
        Steps from one snapshot to the next; an epoch in the paper.

    Raises
    ------
    OptionError
        If a number is out of range. ModelError if the model has no weights.

    Source: Maddox et al., A Simple Baseline for Bayesian Uncertainty in Deep Learning, NeurIPS 2019 (arXiv
    1902.02476), section 3.

    Example
    -------
    >>> model = nn.Linear(1, 1)
    >>> tracker = start(model, every=1)
    >>> for _ in range(3):
    ...     tracker.update(model)  # as the loop calls it after each step
    >>> torch.equal(tracker.posterior().draw(torch.Generator())["bias"], model.bias)
    True
    """
    parameters(model)
    if rank < 0 or burn_in < 0 or every < 1:
        raise OptionError(f"swag: expected rank >= 0, burn_in >= 0, every >= 1, got {rank}, {burn_in}, {every}")
    return Tracker(rank=rank, burn_in=burn_in, every=every)
