"""Meta classification by a network with one hidden layer."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caveat.errors import OptionError
from caveat.scores.meta.preparation import Preparation, check, drawn_seed, one_thread, prepare
from caveat.types import Score

__all__ = ["Network", "network"]

STEPS = 300


@dataclass(frozen=True)
class Network:
    """A fitted network."""

    preparation: Preparation
    hidden: Float[Tensor, "h k"]
    hidden_bias: Float[Tensor, " h"]
    weight: Float[Tensor, " h"]
    bias: Float[Tensor, ""]
    names: tuple[str, ...]

    def log_odds(self, columns: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Log odds of wrong or OOD."""
        units = torch.relu(self.preparation(columns) @ self.hidden.T + self.hidden_bias)
        return (units * self.weight).sum(dim=1) + self.bias

    def __call__(self, columns: Float[Tensor, "n k"]) -> Score:
        """Probability in [0, 1] that the answer is wrong or the input OOD."""
        return torch.sigmoid(self.log_odds(columns)).to(columns.dtype)


def network(
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    *,
    units: int = 15,
    decay: float = 1e-3,
    names: tuple[str, ...] = (),
    log: bool = True,
    clip: bool = True,
    generator: torch.Generator | None = None,
) -> Network:
    """Probability of a wrong answer or OOD input, by a network with one hidden layer of ReLUs.

    What profits most from a few auxiliary OOD inputs: it bends where a linear model can't.

    Formula: P = sigmoid(b + v . relu(W z + a)), z the prepared columns; minimises the mean of -log P(what it was) plus
    decay * (|W|^2 + |v|^2), by L-BFGS.

    Parameters
    ----------
    units, decay
        15 and 1e-3 in the paper (which trains by SGD, and writes the output as a softmax over two).
    log, clip
        See `prepare`.
    generator
        Draws the first weights; without one they are those of seed 0.

    Raises
    ------
    OptionError
        If there are no units, or `decay` is negative.
    DataError
        If a column is not finite, lengths differ, or all answers are of one kind.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 3.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    if units < 1:
        raise OptionError(f"units: expected at least 1, got {units}")
    if decay < 0:
        raise OptionError(f"decay: expected a number of at least 0, got {decay}")
    check(columns, wrong, names)
    preparation = prepare(columns, log=log, clip=clip)
    model: Any = MLPClassifier(
        (units,), solver="lbfgs", alpha=2 * decay * len(columns), max_iter=STEPS, random_state=drawn_seed(generator)
    )
    # it may stop early: the penalty decides, not the last digit
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(preparation(columns).cpu().numpy(), wrong.cpu().numpy())
    (hidden, weight), (hidden_bias, bias) = (
        [torch.from_numpy(part).double().to(columns.device) for part in parts]
        for parts in (model.coefs_, model.intercepts_)
    )
    return Network(preparation, hidden.T.contiguous(), hidden_bias, weight[:, 0].contiguous(), bias[0].clone(), names)
