"""Charts and pictures of the study of two uncertainties: bands around the sine, maps of the plane."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from caveat.records.findings import Figure, Shot
from caveat.records.pictures import encoded
from caveat.scores import draws as of_draws
from caveat.studies.kit import plots
from caveat.studies.kit.regression import ONE, Answer
from caveat.studies.two_uncertainties.training import PI, split_at

__all__ = ["bands", "maps"]

SIDE = 48
Draws = Callable[[Tensor], Tensor]


def bands(name: str, answer: Answer, inputs: Tensor, labels: Tensor) -> Figure:
    """The predicted mean with bands of total and of aleatoric uncertainty, the samples behind them."""
    grid = torch.linspace(-PI, 4 * PI, 161)[:, None]
    found = split_at(answer, grid)
    rows: list[Mapping[str, float | str | None]] = []
    for kind, variance in (("total uncertainty", found.total), ("aleatoric uncertainty", found.aleatoric)):
        for x, mean, deviation in zip(grid[:, 0].tolist(), found.mean.tolist(), variance.sqrt().tolist(), strict=True):
            low, high = (round(min(max(mean + side * deviation, -4.0), 4.0), 4) for side in (-2, 2))
            rows.append({"x": round(x, 3), "y": round(min(max(mean, -4.0), 4.0), 4), "low": low, "high": high,
                         "band": kind})  # fmt: skip
    points = [{"x": round(x, 3), "y": round(y, 3)} for x, y in zip(inputs[:, 0].tolist(), labels.tolist(), strict=True)]
    spec = plots.band(
        rows, x="x", y="y", low="low", high="high", colour="band", points=points,
        description=f"Mean and bands of two standard deviations, {name}",
    )  # fmt: skip
    return Figure(
        title=name, spec=spec, caption="Bands of two standard deviations; training data on (0, 2π). Cut at ±4."
    )


def maps(name: str, draws: Draws, points: Tensor, labels: Tensor) -> list[Shot]:
    """Both uncertainties over the plane [-5, 5]², with the samples: black none, white 1 bit and a quarter of one."""
    line = torch.linspace(-5, 5, SIDE)
    grid = torch.stack(torch.meshgrid(line.flip(0), line, indexing="ij"), dim=-1).flip(-1).reshape(-1, 2)
    outputs = draws(grid)
    shots: list[Shot] = []
    for kind, score, white in (
        ("aleatoric uncertainty", of_draws.expected_entropy, 1.0),
        ("epistemic uncertainty", of_draws.mutual_information, 0.25),
    ):  # fmt: skip
        if score is of_draws.mutual_information and name == ONE:
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
    return encoded(image.quantize(32))
