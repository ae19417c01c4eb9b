"""Figures of the study on OOD zeros: the trade-off, confidences, errors by digit, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import torch
from PIL import Image
from torch import Tensor

from caveat.guard.pseudo_ood import pseudo_ood
from caveat.models.denoising_classifier import DenoisingClassifier
from caveat.objectives.denoising import noised
from caveat.records.pictures import encoded
from caveat.sampling import evenly
from caveat.studies.denoising_mnist.training import Sets
from caveat.studies.kit import plots

__all__ = ["Shots", "by_digit", "confidences", "shots", "trade_off"]

SHOWN = 10
ZOOM = 2
OURS, PRINTED = plots.COLOURS[0], plots.COLOURS[1]


@dataclass(frozen=True)
class Shots:
    """Pictures as base64 of PNGs."""

    zeros: str
    others: str
    ood: str


def shots(model: DenoisingClassifier, given: Sets, *, seed: int) -> Shots:
    """Digits, with noise, and reconstructed; pseudo-OOD digits beside what they are made of."""
    draw = torch.Generator().manual_seed(seed)
    inside = given.held[evenly(len(given.held), 2 * SHOWN)]
    with torch.no_grad():
        strips = [
            [x, z, model.reconstruct(z)] for x in (given.zeros[:SHOWN], inside[:SHOWN]) for z in [noised(x, draw)]
        ]
    plain = pseudo_ood(inside, torch.Generator().manual_seed(seed))
    drawn = pseudo_ood(inside, torch.Generator().manual_seed(seed), model=model)
    return Shots(_png(strips[0]), _png(strips[1]), _png([plain, drawn]))


def _png(rows: Sequence[Tensor]) -> str:
    """One row of grey pictures under the other, a pixel apart."""
    side = rows[0].shape[-1]
    canvas = torch.full((len(rows) * (side + 1) - 1, len(rows[0]) * (side + 1) - 1), 0.5)
    for row, images in enumerate(rows):
        for column, image in enumerate(images[:, 0]):
            top, left = row * (side + 1), column * (side + 1)
            canvas[top : top + side, left : left + side] = image
    picture = Image.fromarray((canvas * 255).round().to(torch.uint8).numpy())
    picture = picture.resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.NEAREST)
    return encoded(picture)


def trade_off(
    curves: Mapping[str, Sequence[float]],
    grid: Sequence[float],
    points: Sequence[Mapping[str, float | str]],
    printed: tuple[float, float],
) -> dict[str, Any]:
    """Zeros detected against other digits correct, one line a criterion; the rules' points, and the published one."""
    rows = [
        {"score": name, "others correct": right, "zeros detected": share}
        for name, curve in curves.items()
        for share, right in zip(grid, curve, strict=True)
    ]
    names = list(curves)
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2, clip=True)
        .encode(
            x=alt.X("others correct:Q", title="others correct, %", scale=alt.Scale(domain=[70, 100])),
            y=alt.Y("zeros detected:Q", title="zeros detected, %", scale=alt.Scale(domain=[50, 100])),
            color=alt.Color(
                "score:N", title=None, scale=alt.Scale(domain=names, range=list(plots.COLOURS[2:5][: len(names)]))
            ),
            order="zeros detected:Q",
        )
    )
    whose = ["ours", "published"]
    marks = [dict(point) | {"whose": "ours"} for point in points]
    marks.append(
        {"whose": "published", "rule": "the report", "zeros detected": printed[0], "others correct": printed[1]}
    )
    dots = (
        alt.Chart(alt.Data(values=marks))
        .mark_point(filled=True, size=80, opacity=1, clip=True)
        .encode(
            x="others correct:Q",
            y="zeros detected:Q",
            shape=alt.Shape("whose:N", title=None, scale=alt.Scale(domain=whose, range=["circle", "diamond"])),
            fill=alt.Fill("whose:N", title=None, scale=alt.Scale(domain=whose, range=[OURS, PRINTED])),
            tooltip=[
                alt.Tooltip("rule:N"), alt.Tooltip("zeros detected:Q", format=".1f"),
                alt.Tooltip("others correct:Q", format=".1f"),
            ],
        )
    )  # fmt: skip
    layers = alt.layer(lines, dots)
    return plots.finish(layers, description="Zeros detected against other digits correct", height=320)


def confidences(histograms: Mapping[str, Sequence[float]], *, description: str) -> dict[str, Any]:
    """How the largest softmax is distributed over correct and wrong predictions and zeros, in % of each."""
    rows = [
        {"largest softmax": (bin + 0.5) / len(shares), "share, %": share, "predictions": group}
        for group, shares in histograms.items()
        for bin, share in enumerate(shares)
    ]
    return plots.lines(rows, x="largest softmax", y="share, %", colour="predictions", description=description)


def by_digit(errors: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Median and 10 to 90 % range of the reconstruction error of every digit."""
    rows = [
        {"digit": str(digit), "low": found["10 %"], "median": found["median"], "high": found["90 %"],
         "kind": "in-distribution" if digit else "OOD"}
        for digit, found in errors.items()
    ]  # fmt: skip
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("digit:N", title="digit", axis=alt.Axis(labelAngle=0)),
        color=alt.Color(
            "kind:N", title=None, scale=alt.Scale(domain=["in-distribution", "OOD"], range=[OURS, PRINTED])
        ),
    )
    ranges = base.mark_rule(strokeWidth=3, opacity=0.5).encode(
        y=alt.Y("low:Q", title="reconstruction error of a pixel"), y2="high:Q"
    )
    middle = base.mark_point(filled=True, size=60).encode(y="median:Q")
    return plots.finish(alt.layer(ranges, middle), description="Reconstruction error by digit")
