"""Pictures as strangers make them: every mode, format and damage, each with what a reader should make of it.

A picture of class 0, 1 or 2 is bright in its upper left, upper right or lower left quarter, so that one that is turned,
or read in the wrong mode, shows another class.
"""

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

SIDE = 8
READ, LEFT_OUT, EITHER, OTHER_SIZE = "read", "left out", "either", "other size"
"""What becomes of a picture: `EITHER` where all its pixels are there but something around them is damaged."""

Encode = Callable[[Image.Image], bytes]


def drawn(shown: int, number: int) -> Image.Image:
    """A grey picture of the class `shown`; those of different numbers differ."""
    pixels = np.full((SIDE, SIDE), 40, np.uint8)
    half = SIDE // 2
    rows, columns = ((0, 0), (0, half), (half, 0))[shown]
    pixels[rows : rows + half, columns : columns + half] = 200
    pixels[-1, -1] = 10 + 5 * (number % 40)
    return Image.fromarray(pixels)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def plain(picture: Image.Image) -> bytes:
    """The picture of colour that all sets consist of."""
    return saved(picture.convert("RGB"), "PNG")


def _mode(picture: Image.Image, *, mode: str, kind: str = "PNG", **options: object) -> bytes:
    return saved(picture.convert(mode), kind, **options)


def _alpha(picture: Image.Image) -> bytes:
    made = picture.convert("RGBA")
    made.putalpha(Image.fromarray(np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(SIDE, SIDE)))
    return saved(made, "PNG")


def _palette(picture: Image.Image, **options: object) -> bytes:
    return saved(picture.convert("RGB").quantize(16), "PNG", **options)


def _shuffled_palette(picture: Image.Image) -> bytes:
    """Indices that are anything but brightness."""
    indexed = picture.convert("L").quantize(16)
    order = np.arange(16)[::-1].astype(np.uint8)
    palette = np.array((indexed.getpalette() or []) + [0] * 48, np.uint8)[:48].reshape(16, 3)
    made = Image.fromarray(order[np.asarray(indexed)], "P")
    made.putpalette(palette[order].flatten().tolist())
    return saved(made, "PNG")


def _turned(picture: Image.Image, *, orientation: int, kind: str) -> bytes:
    """As a camera stores it that was held otherwise: the tag says how to turn it upright."""
    way = Image.Transpose
    stored = {
        2: way.FLIP_LEFT_RIGHT,
        3: way.ROTATE_180,
        4: way.FLIP_TOP_BOTTOM,
        5: way.TRANSPOSE,
        6: way.ROTATE_90,
        7: way.TRANSVERSE,
        8: way.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(picture.convert("RGB").transpose(stored[orientation]), kind, exif=exif.tobytes(), **options)


def _animated(picture: Image.Image, *, kind: str) -> bytes:
    other = Image.new("RGB", picture.size, (255, 255, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(picture.convert("RGB"), kind, save_all=True, append_images=[other], **options)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _declared(_: Image.Image, *, width: int, height: int) -> bytes:
    return _png(width, height, 8, 2, bytes(1000))


def _sixteen(picture: Image.Image, *, colour: int) -> bytes:
    row = b"\0" + bytes(SIDE * 2 * {0: 1, 2: 3, 4: 2, 6: 4}[colour])
    return _png(SIDE, SIDE, 16, colour, row * SIDE)


def _cut(picture: Image.Image, *, of: Encode, keep: float = 0.5, less: int = 0) -> bytes:
    whole = of(picture)
    return whole[: int(len(whole) * keep) - less]


def _changed(picture: Image.Image, *, checked: bool) -> bytes:
    """Damage within the pixels, whose checksum is wrong or was made to fit."""
    whole = plain(picture)
    start = whole.index(b"IDAT")
    length = struct.unpack(">I", whole[start - 4 : start])[0]
    content = bytearray(whole[start + 4 : start + 4 + length])
    content[5] ^= 0xFF
    sealed = (
        chunk(b"IDAT", bytes(content)) if checked else whole[start - 4 : start + 4] + bytes(content) + whole[-16:-12]
    )
    return whole[: start - 4] + sealed + whole[start + 8 + length :]


def _text_bomb(picture: Image.Image) -> bytes:
    whole = plain(picture)
    return whole[:33] + chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(5_000_000))) + whole[33:]


def _other(picture: Image.Image) -> bytes:
    return plain(picture.resize((SIDE + 1, SIDE)))


JPEG = partial(_mode, mode="RGB", kind="JPEG", quality=95)
GREY = {"grey", "grey and alpha", "one bit", "grey jpeg", "grey with a transparent level"}
"""Of one channel."""
PICTURES: dict[str, tuple[Encode, str]] = {
    "grey": (partial(_mode, mode="L"), READ),
    "grey and alpha": (partial(_mode, mode="LA"), READ),
    "grey with a transparent level": (partial(_mode, mode="L", transparency=200), READ),
    "one bit": (lambda picture: saved(picture.point(lambda level: 255 * (level > 150)).convert("1"), "PNG"), READ),
    "alpha": (_alpha, READ),
    "palette": (_palette, READ),
    "palette with a transparent colour": (partial(_palette, transparency=0), READ),
    "palette in another order": (_shuffled_palette, READ),
    "jpeg": (JPEG, READ),
    "grey jpeg": (partial(_mode, mode="L", kind="JPEG", quality=95), READ),
    "progressive jpeg": (partial(_mode, mode="RGB", kind="JPEG", quality=95, progressive=True), READ),
    "cmyk": (partial(_mode, mode="CMYK", kind="JPEG", quality=95), READ),
    "webp": (partial(_mode, mode="RGB", kind="WEBP", lossless=True), READ),
    "bmp": (partial(_mode, mode="RGB", kind="BMP"), READ),
    "bmp of 32 bits": (partial(_mode, mode="RGBA", kind="BMP"), READ),
    **{f"jpeg turned {n}": (partial(_turned, orientation=n, kind="JPEG"), READ) for n in range(2, 9)},
    **{
        f"{kind} turned {n}": (partial(_turned, orientation=n, kind=kind), READ)
        for kind, n in (("PNG", 6), ("WEBP", 8))
    },
    "animated png": (partial(_animated, kind="PNG"), READ),
    "animated webp": (partial(_animated, kind="WEBP"), READ),
    "junk behind": (lambda picture: plain(picture) + b"PK\x03\x04" * 99, READ),
    "gif": (partial(_mode, mode="L", kind="GIF"), LEFT_OUT),
    "tiff": (partial(_mode, mode="RGB", kind="TIFF"), LEFT_OUT),
    "tiff of floats": (partial(_mode, mode="F", kind="TIFF"), LEFT_OUT),
    "ico": (partial(_mode, mode="RGB", kind="ICO"), LEFT_OUT),
    "eps": (partial(_mode, mode="RGB", kind="EPS"), LEFT_OUT),
    "16 bits": (partial(_sixteen, colour=0), LEFT_OUT),
    "16 bits of colour": (partial(_sixteen, colour=2), LEFT_OUT),
    "16 bits and alpha": (partial(_sixteen, colour=4), LEFT_OUT),
    "empty": (lambda _: b"", LEFT_OUT),
    "text": (lambda _: b"not a picture\n", LEFT_OUT),
    "pickle": (lambda _: b"\x80\x04\x8c\x02os\x8c\x06system\x93.", LEFT_OUT),
    "cut png": (partial(_cut, of=plain), LEFT_OUT),
    "cut header": (partial(_cut, of=plain, keep=0.1), LEFT_OUT),
    "png without its end": (partial(_cut, of=plain, keep=1, less=12), EITHER),
    "cut jpeg": (partial(_cut, of=JPEG, keep=0.9), EITHER),
    "cut jpeg header": (partial(_cut, of=JPEG, keep=0.3), LEFT_OUT),
    "cut webp": (partial(_cut, of=partial(_mode, mode="RGB", kind="WEBP", lossless=True)), LEFT_OUT),
    "cut bmp": (partial(_cut, of=partial(_mode, mode="RGB", kind="BMP")), LEFT_OUT),
    "wrong checksum": (partial(_changed, checked=False), LEFT_OUT),
    "damage that fits its checksum": (partial(_changed, checked=True), LEFT_OUT),
    "50000x50000 declared": (partial(_declared, width=50_000, height=50_000), LEFT_OUT),
    "4001x4000 declared": (partial(_declared, width=4001, height=4000), LEFT_OUT),
    "the largest declared": (partial(_declared, width=2**31 - 1, height=2**31 - 1), LEFT_OUT),
    "no width": (partial(_declared, width=0, height=8), LEFT_OUT),
    "bomb in a text": (_text_bomb, EITHER),
    "other size": (_other, OTHER_SIZE),
}
