"""Pictures and charts of the study of adversarial examples: attacked digits, accuracy over the radius."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from caveat import attacks
from caveat.attacks import Ball
from caveat.records.findings import Figure, Shot
from caveat.records.pictures import encoded
from caveat.studies.adversarial_mnist.training import Size
from caveat.studies.kit import plots

__all__ = ["curves", "shot", "strip"]

SIDE = 56
FRAME = 3
"""Pixels of the frame around each picture, and of the gap."""
WRONG, RIGHT = (230, 97, 1), (150, 150, 150)


def strip(rows: Sequence[Tensor], answers: Sequence[Tensor], labels: Tensor) -> str:
    """Base64 of a PNG, one row each of `rows`, pictures (n, 1, h, w) in [0, 1]; an orange frame: a wrong prediction."""
    cell = SIDE + 3 * FRAME
    canvas = Image.new("RGB", (cell * len(labels), cell * len(rows)), (255, 255, 255))
    for down, (pictures, predicted) in enumerate(zip(rows, answers, strict=True)):
        for across, picture in enumerate(pictures):
            wrong = bool(predicted[across] != labels[across])
            framed = Image.new("RGB", (SIDE + 2 * FRAME, SIDE + 2 * FRAME), WRONG if wrong else RIGHT)
            grey = Image.fromarray((picture[0] * 255).round().to(torch.uint8).numpy())
            framed.paste(grey.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB"), (FRAME, FRAME))
            canvas.paste(framed, (across * cell, down * cell))
    return encoded(canvas.quantize(64))


def shot(name: str, model: nn.Module, inputs: Tensor, labels: Tensor, size: Size, seed: int) -> Shot:
    """The first correctly classified picture of each digit: as it is, and after each attack."""
    generator = torch.Generator().manual_seed(seed + 5)
    with torch.inference_mode():
        right = (model(inputs).argmax(1) == labels).nonzero().squeeze(1).tolist()
    first = {int(labels[row]): row for row in reversed(right)}
    rows = torch.tensor([first[digit] for digit in sorted(first)])
    own, truth, ball = inputs[rows], labels[rows], Ball(math.inf, size.radius)
    shown = [
        own,
        attacks.fgsm(model, own, truth, ball, generator=generator),
        attacks.pgd(model, own, truth, ball, generator=generator, steps=size.steps),
        attacks.sparse(model, own, (truth + 1) % 10, steps=size.priced).inputs,
    ]
    with torch.inference_mode():
        answers = [model(row).argmax(1) for row in shown]
    texts = ("original", "FGSM", f"PGD-{size.steps}", "L1, to the next digit")
    predicted = [
        f"{text}: predicted " + " ".join(str(int(answer)) for answer in row)
        for text, row in zip(texts, answers, strict=True)
    ]
    return Shot(
        title=f"{name} network", png=strip(shown, answers, truth), caption="By row. " + "; ".join(predicted) + "."
    )  # fmt: skip


def curves(found: Mapping[str, Mapping[str, Any]], attack: str, column: int, radius: float) -> Figure:
    """Accuracy of each network under that attack, over its radius; `column` of each point of its curve."""
    rows = [
        {"radius": point[0], "accuracy in %": point[column], "network": name}
        for name, one in found.items()
        for point in one["curve"]
    ]
    spec = plots.lines(
        rows, x="radius", y="accuracy in %", colour="network", description=f"Accuracy under {attack} over its radius"
    )
    caption = f"Norm inf, inputs in [0, 1]; FGSM, PGD and TRADES trained for {radius:g}."
    return Figure(title=f"Accuracy under {attack}", spec=spec, caption=caption)
