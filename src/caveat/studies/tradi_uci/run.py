"""TRADI on nine UCI regression sets: RMSE, NLL and the coverage of prediction intervals."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caveat.calibration import cqr
from caveat.data.tabular import UCI, Split, open_table, open_uci
from caveat.metrics import prediction_intervals, regression
from caveat.objectives import quantile
from caveat.records.findings import Findings, Scale
from caveat.scores.regression import Gaussians, cdf, interval, split
from caveat.studies.kit import folder as folders
from caveat.studies.kit.regression import Recipe
from caveat.studies.tradi_uci.findings import CQR, ERROR, Figures, conclude

__all__ = ["one_split", "run"]


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    splits: int
    large: int
    """Splits of the sets with more than 5,000 rows."""
    recipe: Recipe


SIZES: dict[Scale, Size] = {
    "smoke": Size(1, 1, Recipe(epochs=3, members=2, draws=3)),
    "small": Size(5, 2, Recipe()),
    "full": Size(20, 20, Recipe()),
}


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train on every split, judge on its test part; see `studies`. A split that is done is not done again."""
    size = SIZES[scale]
    folders.claim(folder, study="tradi-uci", scale=scale, seed=seed, size=size)
    names = ["yacht"] if scale == "smoke" else list(UCI)
    found: dict[str, list[Figures]] = {}
    for name in names:
        table = open_table(_toy(folder), name=name) if scale == "smoke" else open_uci(name)
        count = min(len(table.tests), size.large if len(table.labels) > 5000 else size.splits)
        recipe = replace(size.recipe, hidden=(100,)) if name == "protein" else size.recipe
        if len(table.labels) > 5000:  # ten times the steps: at the small sets' rate single networks diverge
            recipe = replace(recipe, rate=0.01)
        found[name] = []
        for number in range(count):
            say(f"{name}: split {number + 1} of {count}")
            make = partial(one_split, table.split(number), recipe, seed + number)
            found[name].append(folders.stored(folder / "splits" / f"{name}-{seed}-{number}.json", make))
    return conclude(scale, seed, size.splits, size.large, size.recipe, found)


def one_split(part: Split, recipe: Recipe, seed: int) -> Figures:
    """Every method's figures on the test part, in the labels' own units."""
    found: Figures = {}
    for name, answer in recipe.answers(part.inputs, part.labels, seed).items():
        draws = answer(part.test_inputs)
        own = Gaussians(part.centre + part.scale * draws.mean, part.scale**2 * draws.variance)
        found[name] = _figures(own, part.test_labels)
    found[CQR] = _conformal(part, recipe, seed)
    return found


def _figures(draws: Gaussians, labels: Tensor) -> dict[str, float]:
    both = split(draws.mean, draws.variance)
    low, high = interval(draws, error=ERROR)
    return {
        "RMSE": float(regression.rmse(both.mean, labels)),
        "NLL": float(regression.gaussian_nll(both.mean, both.total, labels)),
        "mixture NLL": float(regression.mixture_nll(draws.mean, draws.variance, labels)),
        "CRPS": float(regression.mixture_crps(draws.mean, draws.variance, labels)),
        "epistemic": 100 * float((both.epistemic / both.total).mean()),
        "calibration": 100 * float(prediction_intervals.calibration_error(cdf(draws, labels).clamp(0, 1))),
        **_interval(low, high, labels),
    }


def _interval(low: Tensor, high: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "coverage": 100 * float(prediction_intervals.interval_coverage(low, high, labels)),
        "width": float(prediction_intervals.interval_width(low, high)) / float(labels.std()),
        "interval score": float(prediction_intervals.interval_score(low, high, labels, error=ERROR)),
    }


def _conformal(part: Split, recipe: Recipe, seed: int) -> dict[str, float]:
    """A network of the 5 % and 95 % quantiles, corrected on a fifth of the training part that it has not seen."""
    order = torch.randperm(len(part.labels), generator=torch.Generator().manual_seed(seed))
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]

    def objective(model: torch.nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return quantile(model, inputs, labels, generator, levels=(ERROR / 2, 1 - ERROR / 2))

    model, _ = recipe.trained(part.inputs[rest], part.labels[rest], seed, objective=objective)
    with torch.no_grad():
        ends, tests = (model(x).sort(dim=1).values for x in (part.inputs[held], part.test_inputs))
    corrected = cqr.fit(ends[:, 0], ends[:, 1], part.labels[held], error=ERROR)
    low, high = (part.centre + part.scale * end for end in corrected(tests[:, 0], tests[:, 1]))
    return _interval(low, high, part.test_labels)


def _toy(folder: Path) -> Path:
    """A small set of the archive's form, for a smoke run."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 4))
    labels = inputs[:, 0] + 0.5 * np.abs(inputs[:, 1]) * random.normal(size=200)
    folder.mkdir(parents=True, exist_ok=True)
    tests = np.stack([random.permutation(200)[:40] for _ in range(2)])
    np.savez(folder / "toy.npz", X=inputs, y=labels, test_index=tests)
    return folder / "toy.npz"
