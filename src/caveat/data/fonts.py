"""Letters rendered from a font: OOD inputs for networks that know digits."""

import torch
from PIL import Image, ImageDraw, ImageFont

from caveat.data.source import Images

__all__ = ["LETTERS", "letters"]

LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZabdefghkmnqrty"
"""Without those that look like digits (I, O, S, c, i, j, l, o, p, s, u, v, w, x, z)."""


def letters(
    shape: tuple[int, int, int, int], generator: torch.Generator, *, alphabet: str = LETTERS, turn: float = 15.0
) -> Images:
    """Light letters on black, each drawn at random from the alphabet: of random size, place and slant.

    Real structure of another kind, where noise has none. The font is the one that comes with Pillow.

    Parameters
    ----------
    turn
        Most degrees that a letter is turned either way.
    """
    count, channels, height, width = shape
    side = min(height, width)
    draws = torch.rand(count, 6, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    pictures = torch.zeros(count, 1, height, width)
    for number, (which, size, down, right, slant, light) in enumerate(draws.tolist()):
        font = ImageFont.load_default(size=max(6.0, side * (0.65 + 0.3 * size)))
        canvas = Image.new("L", (width, height))
        draw = ImageDraw.Draw(canvas)
        letter = alphabet[int(which * len(alphabet))]
        left, top, far, bottom = draw.textbbox((0, 0), letter, font=font)
        place = (
            (width - far - left) / 2 + (right - 0.5) * 0.15 * width,
            (height - bottom - top) / 2 + (down - 0.5) * 0.15 * height,
        )
        draw.text(place, letter, fill=255, font=font)
        turned = canvas.rotate(turn * (2 * slant - 1), resample=Image.Resampling.BILINEAR)
        pixels = torch.frombuffer(bytearray(turned.tobytes()), dtype=torch.uint8).reshape(height, width)
        pictures[number, 0] = pixels.float() / 255 * (0.7 + 0.3 * light)
    return pictures.expand(-1, channels, -1, -1).contiguous().to(generator.device)
