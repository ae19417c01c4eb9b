"""Pictures as records hold them: the base64 of a PNG."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["encoded"]


def encoded(image: "Image") -> str:
    """The base64 of a PNG, as small as PIL makes it."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
