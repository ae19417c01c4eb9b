"""MC dropout: the dropout of training stays on, and every pass is a draw."""

from dataclasses import dataclass

from torch import nn

from caveat.errors import OptionError

__all__ = ["Dropout", "of"]


@dataclass(frozen=True)
class Dropout:
    """Random masks; the weights are the model's own."""

    after: tuple[str, ...] = ()
    """Layers whose output is dropped out too."""
    rate: float = 0.0
    """Of the dropout after those layers; layers that drop out themselves keep their own rate."""


def of(model: nn.Module, *, after: tuple[str, ...] = (), rate: float = 0.1) -> Dropout:
    """Take a network that was trained with dropout as it is, or drop out the outputs of the layers `after`.

    Needs no training of its own; not always a substitute for an ensemble. Whatever `torch.nn.functional` offers as
    dropout is switched on, in layers and in functional code alike, and that of attention and recurrent layers of
    torch; so is what else is random in training only: stochastic depth, noise, attention that asks its layer's mode
    for the rate. Batch norm stays in evaluation mode, and so does what keeps a state in training.
    Formula: h <- h * m / (1 - rate), m ~ Bernoulli(1 - rate), anew for each entry and draw, the same for all inputs: a
    draw is one network, and no answer depends on the batch. What comes before the first dropout runs once for all
    draws.

    Parameters
    ----------
    after
        Names of layers of the model that give one tensor.
    rate
        Probability of dropping an entry of their outputs, in (0, 1).

    Raises
    ------
    OptionError
        If a name is no layer of the model, or `rate` is out of range.

    Source: Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016 (arXiv 1506.02142).

    Example
    -------
    >>> of(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    Dropout(after=(), rate=0.0)
    """
    layers = dict(model.named_modules())
    for name in after:
        if name not in layers or not name:
            raise OptionError(f"after: the model has no layer {name!r}; it has {', '.join(list(layers)[1:8])}, ...")
    if after and not 0 < rate < 1:
        raise OptionError(f"rate: expected a probability in (0, 1), got {rate}")
    return Dropout(tuple(after), rate if after else 0.0)
