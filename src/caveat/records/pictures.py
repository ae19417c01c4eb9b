"""Pictures as records hold them: the base64 of a PNG."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = ["encoded", "image"]


def image(pixels: "np.ndarray") -> "Image":
    """A picture of bytes `(1, h, w)`, grey, or `(3, h, w)`, red, green, blue."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def encoded(image: "Image") -> str:
    """The base64 of a PNG, as small as PIL makes it."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
