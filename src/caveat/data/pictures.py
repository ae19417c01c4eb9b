"""Decoding pictures of strangers, with care."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from caveat.data.modifiers import grey, resize, rgb
from caveat.data.source import Images
from caveat.data.tensors import unit
from caveat.errors import DataError

__all__ = ["FORMATS", "MOST_PIXELS", "Form", "decode", "decode_batch", "formed"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Decoders of rare formats are where the holes are: they stay shut."""
MOST_PIXELS = 16_000_000
"""Read from the header and refused before anything is decoded."""

_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")

Picture = UInt8[Tensor, "ch h w"]


@dataclass(frozen=True)
class Form:
    """What a reader is told by modifiers."""

    size: tuple[int, int] | None = None
    """What pictures are made into as they are decoded, so that those of different sizes fit into one batch."""
    channels: int | None = None
    label: str | None = None
    """Of a table, the column of labels, or several with commas between them; None where it is not named."""
    columns: tuple[str, ...] | None = None
    """Of a table, those of the inputs."""
    gaps: bool = False
    """Of a table, whether rows that lack a number are kept, with NaN for it: a guard abstains on them."""


def decode(data: bytes | Path, *, place: str, formats: tuple[str, ...] = FORMATS) -> Picture:
    """One picture, its first frame, turned as its EXIF says; transparency is dropped.

    Raises
    ------
    DataError
        Beginning with `place`: if it is of none of the `formats` (PNG, JPEG, WebP or BMP), is broken, has more than 16
        million pixels or more than 8 bits a channel.
    """
    try:
        # An animation's frames beyond the first are never touched.
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{place}: {image.width}x{image.height} pixels, at most {MOST_PIXELS:,} are read")
            if any(";16" in str(tile) for tile in image.tile):  # Pillow would cut them to 8 without a word
                raise DataError(f"{place}: 16 bits a channel: expected 8; convert the picture")
            image.load()
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
            if upright.mode not in _GREY + _COLOUR:
                raise DataError(f"{place}: pixels of mode {upright.mode!r}: expected 8 bits a channel, grey or colour")
            array = np.array(upright.convert("L" if upright.mode in _GREY else "RGB"))
    except DataError:
        raise
    except UnidentifiedImageError:  # whose words name an object of ours, not the picture
        raise DataError(f"{place}: not a readable picture (expected {', '.join(formats)})") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise DataError(f"{place}: not a readable picture ({_reason(error)})") from None
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def decode_batch(
    data: Sequence[bytes | Path],
    *,
    name: str,
    places: Sequence[str],
    form: Form,
    shape: tuple[int, int, int] | None,
    failed: dict[str, str],
) -> Images:
    """Pictures as one batch in [0, 1], each brought to its size before the next is decoded.

    `shape` is what the set's first picture gave (None: this is the first). Grey pictures join coloured ones; anything
    else that differs must be made equal by `form`. A picture that cannot be decoded is NaN, and `failed` says why.

    Raises
    ------
    DataError
        If a picture differs in size or channels from the first one, or the first one cannot be decoded.
    """
    parts: list[Images] = []
    for item, place in zip(data, places, strict=True):
        try:
            picture = decode(item, place=f"{name}: {place}")
        except DataError as error:
            if shape is None:
                raise
            failed[place] = str(error).removeprefix(f"{name}: {place}: ")
            parts.append(torch.full((1, *shape), torch.nan))
            continue
        parts.append(formed(picture[None], form, shape))
        _check(parts[-1], shape or tuple(parts[0].shape[1:]), f"{name}: {place}")
    return torch.cat(parts)


def formed(images: UInt8[Tensor, "n ch h w"], form: Form, shape: tuple[int, ...] | None = None) -> Images:
    """Pictures in [0, 1], of the channels and size that `form` says; grey ones join coloured ones of `shape`."""
    batch = unit(images)
    channels = form.channels or (3 if shape and shape[0] == 3 else None)
    if channels:
        batch = grey(batch) if channels == 1 else rgb(batch)
    return resize(batch, form.size) if form.size else batch


def _check(batch: Images, shape: tuple[int, ...] | None, place: str) -> None:
    if shape is None or batch.shape[1:] == shape:
        return
    if batch.shape[1] != shape[0]:
        raise DataError(f"{place}: a coloured picture, the first one is grey: give the set  +rgb  or  +grey")
    here, first = (f"{height}x{width}" for height, width in (batch.shape[2:], shape[1:]))
    raise DataError(f"{place}: {here} pixels, the first one {first}: give all one size with  +{first}")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
