"""Aleatoric and epistemic uncertainty of six posteriors, on a noisy sine and on two classes."""

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from caveat.metrics import prediction_intervals, regression
from caveat.objectives import cross_entropy
from caveat.records.findings import Claim, Figure, Findings, Scale, Shot, Table
from caveat.scores import draws as of_draws
from caveat.scores.regression import Gaussians, Split, interval, split
from caveat.studies.kit import common, plots
from caveat.studies.kit.regression import ENSEMBLE, ONE, OURS, Answer, Recipe

__all__ = ["run"]

SOURCE = (
    "Okatani, Deep Learning, 2nd edition (in Japanese), chapter 8: y = sin x + noise of variance 0.005 x², seen on "
    "(0, 2π); the split: Kendall and Gal, NeurIPS 2017. No figures are printed there: its claims are compared."
)
SLOPE = math.sqrt(0.005)
"""The noise's deviation is this times x."""
PI = math.pi
SIDE = 48


@dataclass(frozen=True)
class _Size:
    seeds: int
    samples: int
    recipe: Recipe


REAL = Recipe(hidden=(64, 64), epochs=300, rate=0.01, batch=50, members=10, draws=20, dropout=0.05, decay=1e-4)
SIZES: dict[Scale, _Size] = {
    "smoke": _Size(1, 60, replace(REAL, epochs=4, members=2, draws=3)),
    "small": _Size(1, 400, replace(REAL, epochs=150, members=5)),
    "full": _Size(3, 400, REAL),
}
Figures = dict[str, dict[str, float]]


def run(folder: Path, *, scale: Scale, seed: int, say: Callable[[str], None]) -> Findings:
    """Train every kind of posterior on both toys, and look; see `studies`."""
    size = SIZES[scale]
    seeds = [seed + number for number in range(size.seeds)]
    found: list[Figures] = []
    counts: list[dict[str, dict[str, float]]] = []
    apart: list[Figures] = []
    figures: list[Figure] = []
    shots: list[Shot] = []
    for one in seeds:
        say(f"seed {one}: regression")
        inputs, labels = noisy_sine(size.samples, one)
        answers = size.recipe.answers(_scaled(inputs), labels, one, place=folder / f"sine-{one}")
        found.append({name: _judged(answer, one) for name, answer in answers.items()})
        counts.append(_by_members(answers[ENSEMBLE], size.recipe.members, one))
        say(f"seed {one}: classification")
        # few samples: without a strong pull to small weights all networks are sure of the noise
        recipe = replace(
            size.recipe, objective=cross_entropy, batch=20, decay=0.03, epochs=max(4, size.recipe.epochs // 3)
        )
        draws, points, sides = _classifiers(recipe, one, folder / f"classes-{one}")
        apart.append({name: _places(answer) for name, answer in draws.items()})
        if one == seed:
            figures = [_figure(name, answer, inputs, labels) for name, answer in answers.items()]
            shots = [shot for name, answer in draws.items() for shot in _maps(name, answer, points, sides)]
    return common.findings(
        study="two-uncertainties",
        title="Two uncertainties: noise that stays, uncertainty that data would take away",
        source=SOURCE,
        scale=scale,
        seeds=seeds,
        settings={
            "samples": size.samples, "hidden": str(size.recipe.hidden), "epochs": size.recipe.epochs,
            "members": size.recipe.members, "draws": size.recipe.draws, "dropout": size.recipe.dropout,
            "rate": size.recipe.rate, "weight decay": size.recipe.decay, "class samples": CLASS_SAMPLES,
            "weight decay, classes": 0.03,
        },
        reduced=[
            "The source gives no sizes of network or sample: two hidden layers of 64, 400 samples are ours.",
            "TRADI tracks in the last quarter, its filters with a memory of an eighth of the run.",
        ],
        claims=[] if scale == "smoke" else _claims(found, counts, apart),
        notes=["Smoke: trained for seconds; the figures mean nothing."] if scale == "smoke" else [],
        tables=_tables(found, counts, apart),
        figures=figures,
        shots=shots,
    )  # fmt: skip


def noisy_sine(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples (n, 1) of x, uniform in (0, 2π), and y = sin x + N(0, 0.005 x²)."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * PI * torch.rand(count, 1, generator=generator)
    return x, x[:, 0].sin() + SLOPE * x[:, 0] * torch.randn(count, generator=generator)


def _scaled(inputs: Tensor) -> Tensor:
    return (inputs - PI) / (PI / math.sqrt(3))


def _split(answer: Answer, inputs: Tensor) -> Split:
    draws = answer(_scaled(inputs))
    return split(draws.mean.double(), draws.variance.double())


def _judged(answer: Answer, seed: int) -> dict[str, float]:
    grid = torch.linspace(0.25 * PI, 2 * PI, 200)[:, None]
    inside = _split(answer, grid)
    truth = SLOPE * grid[:, 0].double()
    at = _split(answer, torch.tensor([[PI], [3 * PI]]))
    fresh, labels = noisy_sine(2000, 10_000 + seed)
    draws = answer(_scaled(fresh))
    both = split(draws.mean, draws.variance)
    low, high = interval(Gaussians(draws.mean, draws.variance), error=0.05)
    doubt = at.epistemic.sqrt()
    return {
        "noise": 100 * float(((inside.aleatoric.sqrt() - truth).abs() / truth).median()),
        "inside": float(doubt[0]),
        "outside": float(doubt[1]),
        "ratio": float(doubt[1] / doubt[0].clamp_min(1e-9)),
        "error": float(regression.rmse(inside.mean, grid[:, 0].double().sin())),
        "NLL": float(regression.gaussian_nll(both.mean, both.total, labels)),
        "coverage": 100 * float(prediction_intervals.interval_coverage(low, high, labels)),
        "identity": float((inside.total - (draws_total(answer, grid))).abs().max()),
    }


def draws_total(answer: Answer, inputs: Tensor) -> Tensor:
    """Variance of the mixture from its second moment: another way to the sum of the two parts."""
    draws = answer(_scaled(inputs))
    mean, variance = draws.mean.double(), draws.variance.double()
    return (variance + mean**2).mean(0) - mean.mean(0) ** 2


def _by_members(answer: Answer, members: int, seed: int) -> dict[str, dict[str, float]]:
    """The ensemble's NLL on fresh samples by number of members."""
    fresh, labels = noisy_sine(2000, 10_000 + seed)
    draws = answer(_scaled(fresh))
    found: dict[str, dict[str, float]] = {}
    for count in [k for k in (1, 2, 3, 5, 10) if k <= members]:
        both = split(draws.mean[:count], draws.variance[:count])
        found[str(count)] = {
            "NLL": float(regression.gaussian_nll(both.mean, both.total, labels)),
            "error": float(regression.rmse(both.mean.double(), fresh[:, 0].double().sin())),
        }
    return found


def _figure(name: str, answer: Answer, inputs: Tensor, labels: Tensor) -> Figure:
    grid = torch.linspace(-PI, 4 * PI, 161)[:, None]
    found = _split(answer, grid)
    rows: list[Mapping[str, float | str | None]] = []
    for kind, variance in (("total: noise and uncertainty", found.total), ("noise alone", found.aleatoric)):
        for x, mean, deviation in zip(grid[:, 0].tolist(), found.mean.tolist(), variance.sqrt().tolist(), strict=True):
            low, high = (round(min(max(mean + side * deviation, -4.0), 4.0), 4) for side in (-2, 2))
            rows.append({"x": round(x, 3), "y": round(min(max(mean, -4.0), 4.0), 4), "low": low, "high": high,
                         "band": kind})  # fmt: skip
    points = [{"x": round(x, 3), "y": round(y, 3)} for x, y in zip(inputs[:, 0].tolist(), labels.tolist(), strict=True)]
    spec = plots.band(
        rows, x="x", y="y", low="low", high="high", colour="band", points=points,
        description=f"Mean and bands of two deviations, {name}",
    )  # fmt: skip
    return Figure(title=name, spec=spec, caption="Two deviations; data were seen on (0, 2π). Cut at ±4.")


CLASS_SAMPLES = 40
Draws = Callable[[Tensor], Tensor]


def two_classes(seed: int) -> tuple[Tensor, Tensor]:
    """Two classes of 20 points each that overlap: N((∓0.8, 0), 0.8² I)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASS_SAMPLES) % 2
    centres = torch.tensor([[-0.8, 0.0], [0.8, 0.0]])
    return centres[labels] + 0.8 * torch.randn(CLASS_SAMPLES, 2, generator=generator), labels


def _classifiers(recipe: Recipe, seed: int, place: Path) -> tuple[dict[str, Draws], Tensor, Tensor]:
    points, labels = two_classes(seed)
    answers = recipe.outputs(points, labels, seed, place=place)
    return answers, points, labels


def _places(draws: Draws) -> dict[str, float]:
    """Both uncertainties in the overlap, beside the data and far away along the border, in nats."""
    middle = torch.stack(torch.meshgrid(torch.linspace(-0.4, 0.4, 5), torch.linspace(-0.6, 0.6, 5), indexing="ij"), -1)
    sure = torch.tensor([[-2.2, 0.0], [2.2, 0.0]])
    far = torch.stack([torch.linspace(-2, 2, 9), torch.full((9,), 5.0)], 1)
    far = torch.cat([far, -far])
    found: dict[str, float] = {}
    for name, at in (("overlap", middle.reshape(-1, 2)), ("beside", sure), ("far", far)):
        outputs = draws(at).double()
        found[f"noise {name}"] = float(of_draws.expected_entropy(outputs).mean())
        found[f"uncertainty {name}"] = float(of_draws.mutual_information(outputs).mean())
    return found


def _maps(name: str, draws: Draws, points: Tensor, labels: Tensor) -> list[Shot]:
    """Noise and uncertainty over the plane [-5, 5]², black none, white a bit and a quarter of one, the points upon
    them."""
    line = torch.linspace(-5, 5, SIDE)
    grid = torch.stack(torch.meshgrid(line.flip(0), line, indexing="ij"), dim=-1).flip(-1).reshape(-1, 2)
    outputs = draws(grid)
    shots: list[Shot] = []
    for kind, score, white in (
        ("noise", of_draws.expected_entropy, 1.0), ("uncertainty", of_draws.mutual_information, 0.25),
    ):  # fmt: skip
        if kind == "uncertainty" and name == ONE:
            continue  # one network has none
        values = (score(outputs) / (white * math.log(2))).clamp(0, 1).reshape(SIDE, SIDE)
        shots.append(Shot(title=f"{kind}, {name}", png=_png(values, points, labels), caption=f"White: {white:g} bit."))
    return shots


def _png(values: Tensor, points: Tensor, labels: Tensor) -> str:
    zoom = 5
    image = Image.fromarray((values * 15).round().mul(17).to(torch.uint8).numpy()).convert("RGB")
    image = image.resize((zoom * SIDE, zoom * SIDE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    places = np.round((points.numpy() + 5) / 10 * zoom * SIDE).astype(int)
    for (across, up), label in zip(places.tolist(), labels.tolist(), strict=True):
        down = zoom * SIDE - up
        pen.ellipse((across - 3, down - 3, across + 3, down + 3), fill=("#e07a1f", "#2a7de1")[label], outline="black")
    stream = io.BytesIO()
    image.quantize(32).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _tables(found: list[Figures], counts: list[dict[str, dict[str, float]]], apart: list[Figures]) -> list[Table]:
    return [
        Table(
            title="y = sin x + noise", first="posterior", digits=3,
            columns=["noise found, median error in %", "uncertainty at π", "uncertainty at 3π",
                     "error of the mean", "NLL",
                     "95 % intervals hold, in %"],
            rows=common.rows(found, ["noise", "inside", "outside", "error", "NLL", "coverage"]),
            note="Uncertainty: deviation of the draws' means. Error of the mean: RMSE to sin x on (π/4, 2π). NLL and "
            "coverage on 2,000 fresh samples from (0, 2π).",
        ),
        Table(title="How many members", first="members", columns=["NLL", "error of the mean"], digits=4,
              rows=common.rows(counts, ["NLL", "error"])),
        Table(
            title="Two overlapping, sparse classes: where which uncertainty is, in nats", first="posterior", digits=3,
            columns=["noise, overlap", "noise, beside", "noise, far",
                     "uncertainty, overlap", "uncertainty, beside", "uncertainty, far"],
            rows=common.rows(apart, [f"{kind} {at}" for kind in ("noise", "uncertainty")
                                     for at in ("overlap", "beside", "far")]),
            note="Overlap: around the origin; beside: at (±2.2, 0), well inside one class; far: along y = ±5.",
        ),
    ]  # fmt: skip


def _claims(found: list[Figures], counts: list[dict[str, dict[str, float]]], apart: list[Figures]) -> list[Claim]:
    def mean(of: list[Figures], method: str, column: str) -> float:
        return sum(one[method][column] for one in of) / len(of)

    noise, ratio = mean(found, ENSEMBLE, "noise"), mean(found, ENSEMBLE, "ratio")
    wider = [name for name in found[0] if name != ONE and mean(found, name, "ratio") > 2]
    others = [name for name in found[0] if name != ONE]
    numbers = sorted(map(int, counts[0]))
    five, most = mean(counts, "5", "NLL"), mean(counts, str(numbers[-1]), "NLL")
    in_between = [n for n in others if mean(apart, n, "uncertainty far") > mean(apart, n, "uncertainty beside") + 0.005]
    gap = max(one[name]["identity"] for one in found for name in one)
    return [
        Claim(claim="The network finds the noise: its deviation is 0.0707 x", found=f"Deep ensemble: median error "
              f"{noise:.1f} % on (π/4, 2π).", verdict="confirmed" if noise <= 15 else "refuted"),
        Claim(claim="Uncertainty grows where no data were seen, noise does not tell that",
              verdict="confirmed" if len(wider) == len(others) else "partly" if wider else "refuted",
              found=f"At 3π uncertainty is {ratio:.0f} times that at π for the deep ensemble; more than twice for "
              f"{', '.join(wider) or 'none'} of {len(others)} posteriors. TRADI uncertainties where data are, too: "
              f"{mean(found, OURS, 'inside'):.2f} at π, where the noise is {SLOPE * PI:.2f}."),
        Claim(claim="Total variance is the sum of both", found=f"Largest difference {gap:.1e}.",
              verdict="confirmed" if gap < 1e-9 else "refuted"),
        Claim(claim="About five members are enough", verdict="confirmed" if five - most < 0.02 else "refuted",
              found=f"NLL {mean(counts, '1', 'NLL'):.3f} with one, {five:.3f} with five, {most:.3f} with "
              f"{numbers[-1]}."),
        Claim(claim="Between classes noise is large where they overlap",
              verdict="confirmed" if all(mean(apart, n, "noise overlap") > mean(apart, n, "noise beside")
                                         for n in found[0]) else "refuted",
              found=f"Deep ensemble: {mean(apart, ENSEMBLE, 'noise overlap'):.2f} nats there, "
              f"{mean(apart, ENSEMBLE, 'noise beside'):.2f} beside."),
        Claim(claim="and uncertainty is large far from the data",
              verdict="confirmed" if len(in_between) == len(others) else "partly" if in_between else "refuted",
              found=f"Deep ensemble: {mean(apart, ENSEMBLE, 'uncertainty far'):.2f} nats far away, "
              f"{mean(apart, ENSEMBLE, 'uncertainty beside'):.2f} beside the data; more far away for "
              f"{', '.join(in_between)} of "
              f"{len(others)} posteriors. What TRADI tracks of weights that have come to rest is no uncertainty."),
    ]  # fmt: skip
