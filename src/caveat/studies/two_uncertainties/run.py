"""Aleatoric and epistemic uncertainty of six posteriors, on a noisy sine and on two classes."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from caveat.metrics import prediction_intervals, regression
from caveat.records.findings import Figure, Findings, Scale, Shot
from caveat.scores import draws as of_draws
from caveat.scores.regression import Gaussians, interval, split
from caveat.studies.kit import folder as folders
from caveat.studies.kit.regression import ENSEMBLE, Answer
from caveat.studies.two_uncertainties import figures
from caveat.studies.two_uncertainties.findings import Figures, conclude
from caveat.studies.two_uncertainties.training import PI, SIZES, SLOPE, noisy_sine, scaled, split_at, two_classes

__all__ = ["run"]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train every kind of posterior on both toys, and look; see `studies`."""
    size = SIZES[scale]
    folders.claim(folder, study="two-uncertainties", scale=scale, seed=seed, size=size)
    seeds = [seed + number for number in range(size.seeds)]
    found: list[Figures] = []
    counts: list[Figures] = []
    apart: list[Figures] = []
    charts: list[Figure] = []
    shots: list[Shot] = []
    for one in seeds:
        say(f"seed {one}: regression")
        inputs, labels = noisy_sine(size.samples, one)
        answers = size.recipe.answers(scaled(inputs), labels, one, place=folder / f"sine-{one}")
        found.append({name: _judged(answer, one) for name, answer in answers.items()})
        counts.append(_by_members(answers[ENSEMBLE], size.recipe.members, one))
        say(f"seed {one}: classification")
        points, sides = two_classes(one)
        draws = size.for_classes().outputs(points, sides, one, place=folder / f"classes-{one}")
        apart.append({name: _places(answer) for name, answer in draws.items()})
        if one == seed:
            charts = [figures.bands(name, answer, inputs, labels) for name, answer in answers.items()]
            shots = [shot for name, answer in draws.items() for shot in figures.maps(name, answer, points, sides)]
    return conclude(scale, seeds, size, found, counts, apart, charts=charts, shots=shots)


def _judged(answer: Answer, seed: int) -> dict[str, float]:
    grid = torch.linspace(0.25 * PI, 2 * PI, 200)[:, None]
    inside = split_at(answer, grid)
    truth = SLOPE * grid[:, 0].double()
    at = split_at(answer, torch.tensor([[PI], [3 * PI]]))
    fresh, labels = noisy_sine(2000, 10_000 + seed)
    draws = answer(scaled(fresh))
    both = split(draws.mean, draws.variance)
    low, high = interval(Gaussians(draws.mean, draws.variance), error=0.05)
    epistemic = at.epistemic.sqrt()
    return {
        "noise": 100 * float(((inside.aleatoric.sqrt() - truth).abs() / truth).median()),
        "inside": float(epistemic[0]),
        "outside": float(epistemic[1]),
        "ratio": float(epistemic[1] / epistemic[0].clamp_min(1e-9)),
        "error": float(regression.rmse(inside.mean, grid[:, 0].double().sin())),
        "NLL": float(regression.gaussian_nll(both.mean, both.total, labels)),
        "coverage": 100 * float(prediction_intervals.interval_coverage(low, high, labels)),
        "identity": float((inside.total - (_total(answer, grid))).abs().max()),
    }


def _total(answer: Answer, inputs: Tensor) -> Tensor:
    """Variance of the mixture from its second moment: another way to the sum of the two parts."""
    draws = answer(scaled(inputs))
    mean, variance = draws.mean.double(), draws.variance.double()
    return (variance + mean**2).mean(0) - mean.mean(0) ** 2


def _by_members(answer: Answer, members: int, seed: int) -> Figures:
    """The ensemble's NLL on fresh samples by number of members."""
    fresh, labels = noisy_sine(2000, 10_000 + seed)
    draws = answer(scaled(fresh))
    found: dict[str, dict[str, float]] = {}
    for count in [k for k in (1, 2, 3, 5, 10) if k <= members]:
        both = split(draws.mean[:count], draws.variance[:count])
        found[str(count)] = {
            "NLL": float(regression.gaussian_nll(both.mean, both.total, labels)),
            "error": float(regression.rmse(both.mean.double(), fresh[:, 0].double().sin())),
        }
    return found


def _places(draws: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Both uncertainties in the overlap, beside the data and far away along the border, in nats."""
    middle = torch.stack(torch.meshgrid(torch.linspace(-0.4, 0.4, 5), torch.linspace(-0.6, 0.6, 5), indexing="ij"), -1)
    beside = torch.tensor([[-2.2, 0.0], [2.2, 0.0]])
    far = torch.stack([torch.linspace(-2, 2, 9), torch.full((9,), 5.0)], 1)
    far = torch.cat([far, -far])
    found: dict[str, float] = {}
    for name, at in (("overlap", middle.reshape(-1, 2)), ("beside", beside), ("far", far)):
        outputs = draws(at).double()
        found[f"aleatoric {name}"] = float(of_draws.expected_entropy(outputs).mean())
        found[f"epistemic {name}"] = float(of_draws.mutual_information(outputs).mean())
    return found
