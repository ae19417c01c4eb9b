import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caveat.data.pictures import Form, decode, decode_batch
from caveat.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_come_back_exactly(kind: str):
    data = encoded(Image.fromarray(COLOURS), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode(data, place="x").permute(1, 2, 0).numpy(), COLOURS)


def test_jpeg_is_what_pillow_decodes():
    data = encoded(Image.fromarray(np.tile(COLOURS, (4, 4, 1))), "JPEG", quality=75)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data, place="x").permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_modes(mode: str, channels: int):
    image = Image.fromarray(COLOURS).convert(mode)
    decoded = decode(encoded(image), place="x")
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(4, 3, channels)
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), expected)


def test_16_bits_are_refused_not_clipped():
    data = encoded(Image.fromarray(np.full((2, 2), 40_000, dtype=np.uint16)))
    with pytest.raises(DataError, match="16 bits a channel"):
        decode(data, place="x")


def test_exif_turns_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise to stand upright
    data = encoded(Image.fromarray(COLOURS), exif=exif)
    assert np.array_equal(decode(data, place="x").permute(1, 2, 0).numpy(), np.rot90(COLOURS, -1))


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((2, 2), value, dtype=np.uint8)) for value in (10, 200)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert decode(data, place="x").unique().tolist() == [10]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        encoded(Image.fromarray(COLOURS))[:40],
        encoded(Image.fromarray(COLOURS))[:-35],
        encoded(Image.fromarray(np.tile(COLOURS, (9, 9, 1))), "JPEG")[:300],
        encoded(Image.fromarray(COLOURS), "GIF"),  # a decoder that stays shut
        encoded(Image.fromarray(COLOURS), "TIFF"),
    ],
)
def test_broken_and_foreign_pictures_are_one_line(data: bytes):
    with pytest.raises(DataError, match=r"^set: picture 3: not a readable picture \([^\n]+\)$"):
        decode(data, place="set: picture 3")


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more than it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_the_header_is_enough_to_refuse_a_giant():
    with pytest.raises(DataError, match="4001x4000 pixels, at most 16,000,000"):
        decode(bomb(4001, 4000), place="x")


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the first and refuses the second
def test_bombs(side: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in production: what Pillow warns of, ours refuses
        with pytest.raises(DataError, match=r"decompression bomb|at most 16,000,000 are read"):
            decode_batch([bomb(side, side)], name="set", places=["x"], form=Form(), shape=None, failed={})


def test_files_are_read_too(tmp_path: Path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", place="x").permute(1, 2, 0).numpy(), COLOURS)


def test_mixed_sets_are_made_equal_or_refused():
    def batch(data, places, form, shape):
        return decode_batch(data, name="set", places=places, form=form, shape=shape, failed={})

    grey = encoded(Image.fromarray(COLOURS[:, :, 0]))
    colour, large = encoded(Image.fromarray(COLOURS)), encoded(Image.fromarray(np.tile(COLOURS, (2, 2, 1))))
    joined = batch([colour, grey], ["a", "b"], Form(), (3, 4, 3))
    assert torch.equal(joined[1, 0], joined[1, 2])
    assert (joined[1, 0] * 255).round().to(torch.uint8).numpy().tolist() == COLOURS[:, :, 0].tolist()
    with pytest.raises(DataError, match=r"b: a coloured picture, the first one is grey: give the set  \+rgb"):
        batch([grey, colour], ["a", "b"], Form(), None)
    with pytest.raises(DataError, match=r"b: 8x6 pixels, the first one 4x3: give all one size with  \+4x3"):
        batch([colour, large], ["a", "b"], Form(), None)
    with pytest.raises(DataError, match="8x6 pixels"):  # equal among themselves, but not like the set's first
        batch([large, large], ["a", "b"], Form(), (3, 4, 3))
    form = Form(size=(4, 3), channels=1)
    assert batch([grey, large, colour], list("abc"), form, None).shape == (3, 1, 4, 3)
