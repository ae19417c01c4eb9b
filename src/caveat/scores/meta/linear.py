"""Meta classification by logistic regression: without a penalty, or with the LASSO's, ridge's or both."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from warnings import warn

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from caveat.errors import CaveatWarning, OptionError
from caveat.scores.meta.preparation import Preparation, check, drawn_seed, one_thread, prepare
from caveat.types import Score

__all__ = ["STRENGTHS", "Linear", "Path", "elastic_net", "glm", "lasso", "path", "ridge"]

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Tried in cross-validation."""
FOLDS = 3
STEPS = 1000


@dataclass(frozen=True)
class Linear:
    """A fitted logistic regression."""

    preparation: Preparation
    weight: Float[Tensor, " k"]
    """Of the standardised columns: their sizes compare."""
    bias: Float[Tensor, ""]
    strength: float
    """Of the penalty, chosen or given; 0 without one."""
    names: tuple[str, ...]
    """Of the columns; empty if they were not given."""

    def log_odds(self, columns: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Log odds of wrong or OOD."""
        return (self.preparation(columns) * self.weight).sum(dim=1) + self.bias

    def __call__(self, columns: Float[Tensor, "n k"]) -> Score:
        """Probability in [0, 1] that the answer is wrong or the input OOD."""
        return torch.sigmoid(self.log_odds(columns)).to(columns.dtype)


@dataclass(frozen=True)
class Path:
    """Coefficients over the strength of the penalty."""

    strengths: Float[Tensor, " s"]
    """Descending."""
    weights: Float[Tensor, "s k"]
    biases: Float[Tensor, " s"]


def glm(
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    *,
    names: tuple[str, ...] = (),
    log: bool = True,
    clip: bool = True,
) -> Linear:
    """Probability of a wrong answer or OOD input, by logistic regression without a penalty.

    The plainest meta classifier; with many columns that say the same its coefficients run wild: prefer the LASSO. If
    the columns separate the two kinds there is no optimum; a warning says so, and the fit stops early.

    Formula: P = 1 / (1 + exp(-(b + w . z))), z the prepared columns; minimises -sum log P(what it was).

    Raises
    ------
    DataError
        If a column is not finite, lengths differ, or all answers are of one kind.

    Source: Oberdiek, Rottmann and Gottschalk, Classification Uncertainty of Deep Neural Networks Based on Gradient
    Information, ANNPR 2018 (arXiv 1805.08440), section 3.
    """
    check(columns, wrong, names)
    preparation = prepare(columns, log=log, clip=clip)
    weight, bias = _fitted(preparation(columns), wrong, strength=0.0, l1_ratio=0.0, seed=0)
    return Linear(preparation, weight, bias, 0.0, names)


def lasso(
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    *,
    strength: float | None = None,
    names: tuple[str, ...] = (),
    log: bool = True,
    clip: bool = True,
    generator: torch.Generator | None = None,
) -> Linear:
    """Probability of a wrong answer or OOD input, by the LASSO: few columns get a coefficient.

    The linear meta classifier to start with: of many columns that say the same it keeps one.

    Formula: as `glm`, minimises -sum log P(what it was) + strength * sum |w|.

    Parameters
    ----------
    strength
        1 in the paper; by default the one of `STRENGTHS` with the lowest cross-validated log loss.
    log, clip
        See `prepare`.
    generator
        Draws the folds; without one they are those of seed 0.

    Raises
    ------
    OptionError
        If `strength` is not positive.
    DataError
        As `glm`.

    Source: Tibshirani, JRSS B 1996; as meta classifier: Oberdiek, Rottmann and Gottschalk, ANNPR 2018 (arXiv
    1805.08440), section 3.
    """
    return _penalised(columns, wrong, strength, 1.0, names, log=log, clip=clip, generator=generator)


def ridge(
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    *,
    strength: float | None = None,
    names: tuple[str, ...] = (),
    log: bool = True,
    clip: bool = True,
    generator: torch.Generator | None = None,
) -> Linear:
    """Probability of a wrong answer or OOD input, by ridge: columns that say the same share a coefficient.

    Formula: as `glm`, minimises -sum log P(what it was) + strength / 2 * sum w^2. Options and errors as `lasso`.

    Source: Hoerl and Kennard, Technometrics 1970; as meta classifier: Oberdiek, Rottmann and Gottschalk, ANNPR 2018
    (arXiv 1805.08440), section 3.
    """
    return _penalised(columns, wrong, strength, 0.0, names, log=log, clip=clip, generator=generator)


def elastic_net(
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    *,
    strength: float | None = None,
    names: tuple[str, ...] = (),
    log: bool = True,
    clip: bool = True,
    generator: torch.Generator | None = None,
) -> Linear:
    """Probability of a wrong answer or OOD input, by the elastic net: half LASSO, half ridge.

    Formula: as `glm`, minimises -sum log P(what it was) + strength * (sum |w| / 2 + sum w^2 / 4). Options and errors as
    `lasso`.

    Source: Zou and Hastie, JRSS B 2005; as meta classifier: Oberdiek, Rottmann and Gottschalk, ANNPR 2018 (arXiv
    1805.08440), section 3.
    """
    return _penalised(columns, wrong, strength, 0.5, names, log=log, clip=clip, generator=generator)


def path(
    columns: Float[Tensor, "n k"],
    wrong: Bool[Tensor, " n"],
    *,
    strengths: Sequence[float] = (1000.0, 300.0, *reversed(STRENGTHS)),
    l1_ratio: float = 1.0,
    log: bool = True,
    clip: bool = True,
) -> Path:
    """Coefficients for a falling strength of the penalty: in which order the LASSO lets the columns in.

    Raises
    ------
    OptionError
        If a strength is not positive.
    DataError
        As `glm`.
    """
    check(columns, wrong, ())
    ordered = sorted(strengths, reverse=True)
    z = prepare(columns, log=log, clip=clip)(columns)
    found = [_fitted(z, wrong, strength=_positive(s), l1_ratio=l1_ratio, seed=0) for s in ordered]
    return Path(
        torch.tensor(ordered, dtype=torch.float64),
        torch.stack([weight for weight, _ in found]),
        torch.stack([bias for _, bias in found]),
    )


def _penalised(
    columns: Tensor, wrong: Tensor, strength: float | None, l1_ratio: float, names: tuple[str, ...], *, log: bool,
    clip: bool, generator: torch.Generator | None,
) -> Linear:  # fmt: skip
    check(columns, wrong, names)
    preparation = prepare(columns, log=log, clip=clip)
    z, seed = preparation(columns), drawn_seed(generator)
    chosen = _chosen(z, wrong, l1_ratio, seed) if strength is None else _positive(strength)
    weight, bias = _fitted(z, wrong, strength=chosen, l1_ratio=l1_ratio, seed=seed)
    return Linear(preparation, weight, bias, chosen, names)


def _positive(strength: float) -> float:
    if not 0 < strength < float("inf"):
        raise OptionError(f"strength: expected a positive number, got {strength}")
    return float(strength)


def _chosen(z: Tensor, wrong: Tensor, l1_ratio: float, seed: int) -> float:
    """The strength with the lowest log loss over folds in which both kinds keep their shares; 1 if one is too rare."""
    folds = min(FOLDS, int(wrong.sum()), int((~wrong).sum()))
    if folds < 2:
        return 1.0
    draw = torch.Generator().manual_seed(seed)
    fold = torch.empty(len(z), dtype=torch.long)
    for kind in (wrong, ~wrong):
        rows = kind.nonzero().flatten()
        fold[rows[torch.randperm(len(rows), generator=draw)]] = torch.arange(len(rows)) % folds
    losses = torch.zeros(len(STRENGTHS), dtype=torch.float64)
    for number in range(folds):
        kept, held = fold != number, fold == number
        for place, strength in enumerate(STRENGTHS):
            weight, bias = _fitted(z[kept], wrong[kept], strength=strength, l1_ratio=l1_ratio, seed=seed)
            losses[place] += binary_cross_entropy_with_logits(z[held] @ weight + bias, wrong[held].double()) / folds
    return STRENGTHS[int(losses.argmin())]


def _fitted(z: Tensor, wrong: Tensor, *, strength: float, l1_ratio: float, seed: int) -> tuple[Tensor, Tensor]:
    """Weight and bias. Columns that say nearly the same take the solvers long: they may end short of the optimum."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # liblinear counts the bias as a weight on a column of this size, whose penalty is then next to nothing
    options: dict[float, dict[str, Any]] = {
        0.0: {"solver": "lbfgs"},
        1.0: {"solver": "liblinear", "intercept_scaling": 30.0},
    }
    chosen = options.get(l1_ratio, {"solver": "saga", "tol": 1e-3})
    model: Any = LogisticRegression(
        C=1 / strength if strength else float("inf"), l1_ratio=l1_ratio, max_iter=STEPS, random_state=seed, **chosen
    )
    with one_thread(), warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        model.fit(z.cpu().numpy(), wrong.cpu().numpy())
    if not strength and any(issubclass(found.category, ConvergenceWarning) for found in raised):
        hint = "the columns may separate wrong from right; take a penalty"
        warn(f"meta: logistic regression stopped after {STEPS} steps: {hint}", CaveatWarning, stacklevel=2)
    weight = torch.from_numpy(model.coef_[0]).double().to(z.device)
    return weight, torch.tensor(float(model.intercept_[0]), dtype=torch.float64, device=z.device)
