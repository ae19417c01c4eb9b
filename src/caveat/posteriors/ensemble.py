"""Deep ensembles: several networks, each a plausible answer to the same data."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caveat.calls import check_exchangeable
from caveat.errors import OptionError
from caveat.weights import state as weights_of

__all__ = ["Ensemble", "average", "of", "stack", "state"]


@dataclass(frozen=True)
class Ensemble:
    """Networks of one architecture, as their stacked weights.

    What is not in `weights` (the trunk of a sub-ensemble) is the model's own, and runs once for all members.
    """

    weights: dict[str, Tensor]
    """Per name of a parameter or buffer, `(s, ...)`."""

    def __len__(self) -> int:
        """Number of members."""
        return len(next(iter(self.weights.values())))

    def member(self, index: int) -> dict[str, Tensor]:
        """The weights of one member; views, not copies."""
        return {name: stacked[index] for name, stacked in self.weights.items()}

    def first(self, count: int) -> "Ensemble":
        """The first `count` members.

        Raises
        ------
        OptionError
            If there are fewer.
        """
        if not 1 <= count <= len(self):
            raise OptionError(f"draws: expected 1 to {len(self)}, the number of members, got {count}")
        return Ensemble({name: stacked[:count] for name, stacked in self.weights.items()})

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One member by chance."""
        return self.member(int(torch.randint(len(self), (), generator=generator, device=generator.device)))


def of(models: Sequence[nn.Module], *, only: Sequence[str] = ()) -> Ensemble:
    """Put trained networks of one architecture together.

    The baseline that is hard to beat, at the cost of training and running every member. Formula: a draw is one member
    w_m, m uniform in 1..s, so that the mean prediction is sum_m p(y | x, w_m) / s. Five are usual
    (Lakshminarayanan et al. 2017). With `only`, a sub-ensemble: the trunk is the model's own, the layers named there
    are the members' (Valdenegro-Toro 2019, arXiv 1910.08168).

    Parameters
    ----------
    models
        Networks that differ in their weights only.
    only
        Names of layers; their weights and buffers alone are kept.

    Raises
    ------
    OptionError
        If there are no models, they differ in architecture, or a name of `only` is no layer of theirs.

    Source: Lakshminarayanan, Pritzel and Blundell, Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles, NeurIPS 2017 (arXiv 1612.01474).

    Example
    -------
    >>> len(of([nn.Linear(2, 2), nn.Linear(2, 2)]))
    2
    """
    for model in models:
        check_exchangeable(model)
    return stack([state(model) for model in models], only=only)


def stack(members: Sequence[dict[str, Tensor]], *, only: Sequence[str] = ()) -> Ensemble:
    """Put sets of weights together, as `of` does with models.

    Raises
    ------
    OptionError
        If there is none, they differ in names or shapes, or a name of `only` is no layer of theirs.
    """
    if not members:
        raise OptionError("members: expected at least one network, got none")
    for layer in only:
        if not any(_under(name, [layer]) for name in members[0]):
            raise OptionError(f"only: the models have no layer {layer!r} with weights")
    kinds = [{name: tuple(value.shape) for name, value in weights.items()} for weights in members]
    if odd := next((number for number, kind in enumerate(kinds) if kind != kinds[0]), None):
        raise OptionError(f"members: network {odd} differs from the first in the names or shapes of its weights")
    names = [name for name in members[0] if not only or _under(name, only)]
    if not names:
        raise OptionError("members: expected networks that differ in their weights, but these have none")
    return Ensemble({name: torch.stack([weights[name] for weights in members]) for name in names})


def average(ensemble: Ensemble) -> dict[str, Tensor]:
    """The mean of the members' weights: stochastic weight averaging, if they are snapshots of one run.

    One network at the cost of one, often better than the last; its batch-norm statistics must be renewed
    (`posteriors.renew.statistics`). Whole numbers (counts of batches) are the last member's.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018
    (arXiv 1803.05407).
    """
    return {
        name: stacked.mean(dim=0) if stacked.is_floating_point() else stacked[-1]
        for name, stacked in ensemble.weights.items()
    }


def state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and kept buffers, detached; those that are shared stand once.

    Raises
    ------
    ModelError
        As `weights.state`.
    """
    kept = weights_of(model)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: value.detach() for name, value in named.items() if name in kept}


def _under(name: str, layers: Sequence[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)
