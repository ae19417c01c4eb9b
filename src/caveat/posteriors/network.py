"""A posterior and its model as one network: it goes wherever a model goes."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from caveat import evaluation, fitted
from caveat.errors import DataError, ModelError, OptionError
from caveat.mixture import log_mean
from caveat.posteriors.dropout import Dropout
from caveat.posteriors.ensemble import Ensemble
from caveat.posteriors.predicting import predict

__all__ = ["Predictive", "restored"]

KINDS: dict[str, type[Ensemble | Dropout]] = {"dropout": Dropout, "ensemble": Ensemble}


class Predictive(nn.Module):
    """Answers with the mean probabilities of posterior samples; audits, guards and scores take it as they take a model.

    It observes more than one network does: the draws, which split the uncertainty into what more data would remove
    (epistemic) and what stays (aleatoric). The same seed gives the same masks, whatever the batch.

    Parameters
    ----------
    model
        A classifier, or a dense one, in evaluation mode.
    posterior
        An ensemble (of other posteriors, `sample` one), or dropout.
    draws
        Passes with dropout on, 20 by default; an ensemble answers with its first `draws` members, all by default.

    Raises
    ------
    OptionError
        If the posterior is neither, or `draws` is out of range.

    Example
    -------
    >>> from caveat.posteriors import ensemble
    >>> members = [nn.Linear(2, 3) for _ in range(4)]
    >>> Predictive(members[0], ensemble.of(members)).eval()(torch.ones(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, model: nn.Module, posterior: Ensemble | Dropout, *, draws: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(posterior, Ensemble | Dropout):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers err
            raise OptionError(
                f"posterior: expected an Ensemble or Dropout, got {type(posterior).__name__}: draw networks with sample"
            )
        if draws is not None and isinstance(posterior, Ensemble):
            posterior = posterior.first(draws)
        self.model = model
        self.seed = seed
        self.count = len(posterior) if isinstance(posterior, Ensemble) else 20 if draws is None else draws
        if self.count < 1:
            raise OptionError(f"draws: expected at least 1, got {draws}")
        self._kind = type(posterior)
        tensors, self._values = fitted.arrays(posterior)
        self._names = {name.replace(".", "/"): name for name in tensors}
        for key, name in self._names.items():
            self.register_buffer(key, tensors[name])
        evaluation.without_mode(self)

    @property
    def averaged(self) -> str:
        """Over what its answer is a mean, for a report's title."""
        return f"mean of {self.count} networks" if self._kind is Ensemble else f"MC dropout, {self.count} passes"

    @property
    def posterior(self) -> Ensemble | Dropout:
        """The ensemble or the dropout, where the network is."""
        tensors = {name: getattr(self, key) for key, name in self._names.items()}
        values: dict[str, Any] = self._values
        return fitted.rebuild(self._kind, tensors, values)

    @property
    def description(self) -> dict[str, Any]:
        """The plain values (JSON) that `restored` needs beside the `state_dict`."""
        kind = next(name for name, cls in KINDS.items() if cls is self._kind)
        return {
            "kind": kind, "values": self._values, "names": self._names, "draws": self.count, "seed": self.seed,
        }  # fmt: skip

    def draws(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "s n c *pixels"]:
        """The logits of every network."""
        generator = torch.Generator().manual_seed(self.seed)
        found = predict(self.posterior, self.model, inputs, generator=generator, draws=self.count)
        if found.ndim < 3:
            raise ModelError(f"model: expected logits (n, c), got draws of shape {tuple(found.shape)}")
        return found

    def forward(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n c *pixels"]:
        """Log of the mean of the draws' probabilities."""
        return log_mean(self.draws(inputs))


def restored(model: nn.Module, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> Predictive:
    """Make a `Predictive` again from its model, its `state_dict` and its `description`; weights are not yet loaded.

    Raises
    ------
    DataError
        If the three do not belong together.
    """
    try:
        tensors = {name: state[key] for key, name in description["names"].items()}
        found = fitted.rebuild(KINDS[description["kind"]], tensors, dict(description["values"]))
        return Predictive(model, found, draws=int(description["draws"]), seed=int(description["seed"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OptionError) as error:
        raise DataError(f"posterior: the stored posterior samples are damaged ({error!r})") from None
