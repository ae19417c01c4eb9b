"""Snapshots: the networks that one training run passes through, as an ensemble."""

from typing import Any

import torch
from torch import Tensor, nn

from caveat.errors import OptionError
from caveat.posteriors.ensemble import Ensemble, stack
from caveat.posteriors.layers import parameters

__all__ = ["Tracker", "start"]


class Tracker:
    """Keeps copies of the weights."""

    def __init__(self, burn_in: int, every: int) -> None:
        self._burn_in, self._every, self._steps = burn_in, every, 0
        self._members: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Call after every step of the optimizer."""
        self._steps += 1
        if self._steps > self._burn_in and not (self._steps - self._burn_in) % self._every:
            kept = set(model.state_dict())
            buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
            self._members.append({name: value.clone() for name, value in (parameters(model) | buffers).items()})

    def posterior(self) -> Ensemble:
        """The snapshots, the oldest first; `ensemble.average` gives their mean (SWA).

        Raises
        ------
        OptionError
            If there is none yet.
        """
        if not self._members:
            raise OptionError(f"snapshots: none after {self._steps} steps: lower burn_in or every")
        return stack(self._members)

    def state_dict(self) -> dict[str, Any]:
        """All snapshots."""
        return {"steps": self._steps, "members": list(self._members)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._steps, self._members = state["steps"], list(state["members"])


def start(model: nn.Module, *, every: int, burn_in: int = 0) -> Tracker:
    """Watch a training run and keep a copy of the network every `every` steps, after `burn_in`; batch-norm statistics
    are part of it.

    An ensemble for the price of one training run, best with a learning rate that rises and falls: set `every` to its
    cycle, so that each copy is taken where the rate is lowest. Formula: the members are w_t for
    t = burn_in + every, burn_in + 2 every, ... Its mean is stochastic weight averaging.

    Raises
    ------
    OptionError
        If `every` is not positive or `burn_in` negative.

    Source: Huang et al., Snapshot Ensembles: Train 1, Get M for Free, ICLR 2017 (arXiv 1704.00109).

    Example
    -------
    >>> model = nn.Linear(1, 1)
    >>> tracker = start(model, every=2)
    >>> for _ in range(5):
    ...     tracker.update(model)
    >>> len(tracker.posterior())
    2
    """
    parameters(model)
    if every < 1 or burn_in < 0:
        raise OptionError(f"snapshots: expected every >= 1 and burn_in >= 0, got {every}, {burn_in}")
    return Tracker(burn_in, every)
