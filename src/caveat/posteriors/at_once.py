"""All draws of a posterior in one pass without chance, which can be traced: for exported graphs.

What the draws have in common runs once (`posteriors.shared`). Weights of linear layers run for all draws together, by
`torch.vmap`, which adds an axis to those operations alone that they reach.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from caveat import evaluation
from caveat.calls import tensor, with_weights
from caveat.mixture import log_mean
from caveat.posteriors.dropout import Dropout
from caveat.posteriors.ensemble import Ensemble
from caveat.posteriors.masks import dropping, masked
from caveat.posteriors.network import Predictive
from caveat.posteriors.predicting import Masks, drop_after, fixed_masks, holds
from caveat.posteriors.shared import runs

__all__ = ["AtOnce"]


class AtOnce(nn.Module):
    """A `Predictive` whose draws are fixed: the weights of its members, or of dropout the masks of its seed.

    `draws` and `forward` give what those of the `Predictive` give, up to rounding.
    """

    def __init__(self, predictive: Predictive) -> None:
        super().__init__()
        self.model, self.count, self.seed = predictive.model, predictive.count, predictive.seed
        self.posterior = predictive.posterior
        self.together = isinstance(self.posterior, Ensemble) and _linear(self.model, self.posterior)
        """Whether all draws go through an operation at once; else one after the other, which every network can."""
        self._masks: Masks = []
        evaluation.without_mode(self)

    def fix(self, example: Tensor) -> None:
        """Draw the masks of dropout, whose shapes an input tells; of an ensemble nothing is drawn.

        Raises
        ------
        ModelError
            If something is random in another way than by dropping entries of a tensor (attention, recurrent layers,
            stochastic depth).
        """
        if isinstance(self.posterior, Dropout):
            generator = torch.Generator().manual_seed(self.seed)
            self._masks = fixed_masks(self.posterior, self.model, example, generator=generator, draws=self.count)

    def draws(self, inputs: Tensor) -> Tensor:
        """The logits of every network `(s, n, c)`."""
        posterior = self.posterior
        if isinstance(posterior, Dropout):
            return self._dropped(posterior, inputs)
        if self.together:
            return torch.vmap(lambda weights: tensor(with_weights(self.model, weights, inputs)))(posterior.weights)
        members = [posterior.member(index) for index in range(len(posterior))]
        drawn = {id(weight) for member in members for weight in member.values()}

        def forward(draw: int, chunk: Tensor) -> Tensor:
            return tensor(with_weights(self.model, members[draw], chunk))

        def touches(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
            return holds(args, drawn) or holds(tuple(kwargs.values()), drawn)

        def act(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            return func(*args, **kwargs)

        return torch.stack(runs(forward, inputs, range(self.count), touches, act))

    def _dropped(self, posterior: Dropout, inputs: Tensor) -> Tensor:
        now, call = 0, 0

        def forward(draw: int, chunk: Tensor) -> Tensor:
            nonlocal now, call
            now, call = draw, 0
            return tensor(self.model(chunk))

        def touches(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
            return dropping(func, args, kwargs) is not None

        def act(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            nonlocal call
            if not touches(func, args, kwargs):
                return func(*args, **kwargs)
            scale, shift = (part[now] for part in self._masks[call])
            call += 1
            return masked(args, kwargs, scale, shift)

        with evaluation.unchanged(self.model):
            drop_after(self.model, posterior)
            return torch.stack(runs(forward, inputs, range(self.count), touches, act))

    def forward(self, inputs: Tensor) -> Tensor:
        """Log of the mean of the draws' probabilities."""
        return log_mean(self.draws(inputs))


def _linear(model: nn.Module, posterior: Ensemble) -> bool:
    """Whether linear layers alone are drawn: torch cannot trace others for all draws together and any batch."""
    layers = dict(model.named_modules())
    return all(isinstance(layers.get(name.rpartition(".")[0]), nn.Linear) for name in posterior.weights)
