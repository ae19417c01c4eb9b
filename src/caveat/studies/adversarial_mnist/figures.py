"""Rows of small grey pictures, those that fool the network framed."""

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

__all__ = ["strip"]

SIDE = 56
FRAME = 3
"""Pixels of the frame around each picture, and of the gap."""
FOOLED, KEPT = (230, 97, 1), (150, 150, 150)


def strip(rows: Sequence[Tensor], answers: Sequence[Tensor], labels: Tensor) -> str:
    """Base64 of a PNG, one row each of `rows`, pictures (n, 1, h, w) in [0, 1]; an orange frame: a wrong answer."""
    cell = SIDE + 3 * FRAME
    canvas = Image.new("RGB", (cell * len(labels), cell * len(rows)), (255, 255, 255))
    for down, (pictures, given) in enumerate(zip(rows, answers, strict=True)):
        for across, picture in enumerate(pictures):
            wrong = bool(given[across] != labels[across])
            framed = Image.new("RGB", (SIDE + 2 * FRAME, SIDE + 2 * FRAME), FOOLED if wrong else KEPT)
            grey = Image.fromarray((picture[0] * 255).round().to(torch.uint8).numpy())
            framed.paste(grey.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB"), (FRAME, FRAME))
            canvas.paste(framed, (across * cell, down * cell))
    held = io.BytesIO()
    canvas.quantize(64).save(held, format="PNG", optimize=True)
    return base64.b64encode(held.getvalue()).decode()
