"""Folders and Parquet files of pictures that are not what they should be: contents, names, links, classes."""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.edges.hostile_pictures import EITHER, GREY, LEFT_OUT, PICTURES, READ, drawn, plain
from tests.edges.hostile_sets import (
    CLASSES,
    EACH,
    REFUSED,
    WRONG,
    Hostile,
    Right,
    Rows,
    folder,
    items,
    parquet_file,
    rows,
)


def _expected(kind: str, here: Callable[[int], bool]) -> Right:
    """What is to be read where the pictures at some positions are of a kind."""
    fate = PICTURES[kind][1]
    grey = [here(position) and kind in GREY for position in range(3 * EACH)]
    all_of_it = all(map(here, range(3 * EACH)))
    if (fate == LEFT_OUT and all_of_it) or (fate == "other size" and not all_of_it) or (grey[0] and not all(grey)):
        return REFUSED
    whole = [(label, shown) for label, _, shown in items()]
    rest = [row for position, row in enumerate(whole) if not here(position)]
    if fate in (READ, "other size"):
        return Right((whole,))
    said = (rf"{len(whole) - len(rest)} of 30 pictures could not be read",)
    if fate == EITHER:
        return Right((whole, *([rest] if rest else [])), refusal=all_of_it)
    return Right((rest,), said)


def _encoded(kind: str, here: Callable[[int], bool]) -> list[bytes]:
    made = PICTURES[kind][0]
    return [(made if here(k) else plain)(drawn(shown, number)) for k, (_, number, shown) in enumerate(items())]


def _pictures_in_folder(place: Path, *, kind: str, here: Callable[[int], bool]) -> Right:
    for content, (label, number, _) in zip(_encoded(kind, here), items(), strict=True):
        (place / "set" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        (place / "set" / CLASSES[label] / f"{number:02}.png").write_bytes(content)
    return _expected(kind, here)


def _pictures_in_parquet(place: Path, *, kind: str, here: Callable[[int], bool]) -> Right:
    parquet_file(place / "set.parquet", images=_encoded(kind, here))
    return _expected(kind, here)


def pictures(seed: int) -> Iterator[Hostile]:
    """Every kind of picture as one of a set, at a place drawn, and as all of a set, in folders and in Parquet files."""
    draw = random.Random(seed)
    for number, kind in enumerate(PICTURES):
        one = draw.randrange(1, 30)
        first_or_all = (lambda k: True) if number % 2 else (lambda k: k == 0)
        for k, (name, here) in enumerate(
            ((f"at {one}", lambda k, one=one: k == one), ("first" if number % 2 == 0 else "all", first_or_all))
        ):
            if (k + number) % 2:
                make, spec = _pictures_in_folder, "folder:set"
            else:
                make, spec = _pictures_in_parquet, "parquet:set.parquet"
            yield Hostile(f"{spec.split(':')[0]}: {kind}, {name}", partial(make, kind=kind, here=here), spec)


def _tree(change: Callable[[Path], Right | None]) -> Callable[[Path], Right]:
    def make(place: Path) -> Right:
        folder(place / "good")
        return change(folder(place / "set")) or Right((rows(),))

    return make


def _folder_gone(root: Path, *, name: str, empty: str = "") -> Right | None:
    (root / name).rename(root.parent / "elsewhere")
    if empty:
        (root / empty).mkdir()
    return REFUSED


def _folder_more(root: Path, *, name: str, full: bool) -> Right:
    (root / name).mkdir()
    if full:
        (root / name / "0.png").write_bytes(plain(drawn(0, 0)))
    last = name > "cat"
    return Right((rows(),), ("empty folders count as classes",)) if last and not full else REFUSED


def _renamed(root: Path, *, old: str, new: str) -> Right:
    (root / old).rename(root / new)
    return REFUSED


def _passed_over(root: Path, *, name: str | bytes, inside: str = "x.png") -> None:
    """A folder that is no class: its pictures would shift the labels."""
    place = Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name)))
    place.mkdir(parents=True)
    (place / inside).write_bytes(plain(drawn(0, 0)))


def _beside(
    root: Path, *, name: str, content: bytes = b"x", said: tuple[str, ...] = ("1 files are no pictures",)
) -> Right:
    """A file beside the pictures of a class."""
    (root / "bee" / name).write_bytes(content)
    return Right((rows(),), said)


def _link(root: Path, *, to: str, name: str, said: tuple[str, ...] = (), more: Rows | None = None) -> Right:
    """`more`: what is read through the link, as the last of its class."""
    os.symlink(to, root / name)
    read = [row for row in rows() if row[0] < 2] + (more or []) + [row for row in rows() if row[0] == 2]
    return Right((read,), said)


def _pipe(root: Path) -> Right:
    os.mkfifo(root / "bee" / "99.png")
    return Right((rows(),), ("1 of its entries are links to nothing or no files",))


def _named(root: Path, *, name: bytes, broken: bool) -> Right:
    """A picture of a strange name, the last of `bee` by its name."""
    place = Path(os.fsdecode(os.fsencode(root / "bee") + b"/~" + name))
    place.write_bytes(b"broken" if broken else plain(drawn(1, 7)))
    if broken:
        return Right((rows(),), ("1 of 31 pictures could not be read",))
    return Right(([row for row in rows() if row[0] < 2] + [(1, 1)] + [row for row in rows() if row[0] == 2],))


def _class_named(root: Path, *, name: str) -> Right:
    """A class of a strange name, the last by its name."""
    (root / "cat").rename(root / f"~{name}")
    return Right((rows(),))


def _nested(root: Path) -> None:
    deep = root / "bee" / "x" / "y"
    deep.mkdir(parents=True)
    for file in list((root / "bee").glob("*.png")):
        file.rename(deep / file.name)


def _flat(root: Path, *, beside: bool) -> Right:
    files = sorted(root.rglob("*.png"))
    for number, file in enumerate(files[: 1 if beside else None]):
        file.rename(root / f"{number}.png")
    return REFUSED


def _few(root: Path, *, keep: Callable[[int, int], bool], refused: bool = False) -> Right:
    for label, number, _ in items():
        if not keep(label, number):
            (root / CLASSES[label] / f"{number:02}.png").unlink()
    return REFUSED if refused else Right((rows(keep),), refusal=True)


def _identical(root: Path) -> Right:
    for file in root.rglob("*.png"):
        file.write_bytes(plain(drawn(1, 3)))
    return Right(([(label, 1) for label, _, _ in items()],))


TRAIN = ("--train", "folder:good")
NAMES = {
    "markup": b"[bold]x[red]",
    "escape": b"\x1b[2J\x1b]0;x\x07",
    "newline": b"a\nb",
    "bidi": "\u202egnp.x".encode(),
    "long": b"y" * 240,
    "no UTF-8": b"\xff\xfe",
    "dash": b"--output",
    "quote": b"'\";$(id)`<script>alert(1)</script>"[:20],
    "comma and equals": b"a=b,c",
    "spaces": b"  ",
    "combining": "e\u0301\u0489".encode(),
    "null width": "\u200b".encode(),
    "braces": b"{0}%s{x!r}",
    "percent": b"%00%2e%2e",
}
TREES: dict[str, tuple[Callable[[Path], Right | None], tuple[str, ...]]] = {
    **{f"{name} is missing": (partial(_folder_gone, name=name), ()) for name in CLASSES},
    **{f"{name} is missing, trained with it": (partial(_folder_gone, name=name), TRAIN) for name in CLASSES},
    "ant is missing, an empty one is there": (partial(_folder_gone, name="ant", empty="zoo"), TRAIN),
    **{f"{name} more, empty": (partial(_folder_more, name=name, full=False), ()) for name in ("aaa", "bug", "zoo")},
    **{f"{name} more, full": (partial(_folder_more, name=name, full=True), ()) for name in ("aaa", "bug", "zoo")},
    "cat is Cat": (partial(_renamed, old="cat", new="Cat"), TRAIN),
    "bee is wasp": (partial(_renamed, old="bee", new="wasp"), TRAIN),
    "ant is 'ant '": (partial(_renamed, old="ant", new="ant "), TRAIN),
    **{
        f"{name} beside": (partial(_passed_over, name=name), ())
        for name in (".git", "__MACOSX", "@eaDir", "lost+found")
    },
    "hidden folder in a class": (partial(_passed_over, name="bee/.thumbs"), ()),
    "Trash beside": (lambda root: _passed_over(root, name="Trash") or REFUSED, ()),
    "class of a name that is not UTF-8": (lambda root: _passed_over(root, name=b"\xff\xfe") or REFUSED, ()),
    "AppleDouble": (partial(_beside, name="._00.png", said=()), ()),
    "Thumbs.db": (partial(_beside, name="Thumbs.db"), ()),
    "a gif": (partial(_beside, name="x.gif"), ()),
    "a tif": (partial(_beside, name="x.TIF"), ()),
    "a backup": (partial(_beside, name="00.png.bak"), ()),
    "no suffix": (partial(_beside, name="readme"), ()),
    "a suffix of markup": (partial(_beside, name="x.[red]\x1b[2J"), ()),
    "link to a picture outside": (
        partial(
            _link,
            to="../../good/bee/05.png",
            name="bee/99.png",
            more=[(1, 1)],
            said=("1 of its entries are links to files outside",),
        ),
        (),
    ),
    "link to a class outside": (
        lambda root: (root / "cat").rename(root.parent / "c") and _link(root, to="../c", name="cat"),
        (),
    ),
    "link to nothing": (
        partial(_link, to="gone.png", name="bee/99.png", said=("1 of its entries are links to nothing or no files",)),
        (),
    ),
    "class that is a link to nothing": (partial(_link, to="gone", name="dog", said=("dog",)), ()),
    "linked folder in a class": (partial(_link, to="../../good/bee", name="bee/more", said=("more",)), ()),
    "link to itself": (
        partial(_link, to="99.png", name="bee/99.png", said=("1 of its entries are links to nothing or no files",)),
        (),
    ),
    "link to the set": (lambda root: _link(root, to=".", name="dog") and REFUSED, ()),
    "link to the set in a class": (partial(_link, to="../..", name="bee/up", said=("up",)), ()),
    "a folder named as a picture": (lambda root: (root / "bee" / "99.png").mkdir(), ()),
    "a pipe named as a picture": (_pipe, ()),
    "nested": (_nested, ()),
    "flat": (partial(_flat, beside=False), ()),
    "one picture beside": (partial(_flat, beside=True), ()),
    "one sample": (partial(_few, keep=lambda label, number: (label, number) == (0, 5), refused=True), ()),
    "two samples": (partial(_few, keep=lambda label, number: label < 2 and number == 5), ()),
    "five samples": (partial(_few, keep=lambda label, number: label == 0 and number < 5), ()),
    "one class": (partial(_few, keep=lambda label, number: label == 1), ()),
    "one class, all right": (partial(_few, keep=lambda label, number: label == 1 and number > 3), ()),
    "one class, all wrong": (partial(_few, keep=lambda label, number: (label, number) in WRONG), ()),
    "all identical": (_identical, ()),
    "capitals": (lambda root: [file.rename(file.with_suffix(".PNG")) for file in root.rglob("*.png")] and None, ()),
    "all .jpg": (lambda root: [file.rename(file.with_suffix(".jpg")) for file in root.rglob("*.png")] and None, ()),
    "all .txt": (lambda root: [file.rename(file.with_suffix(".txt")) for file in root.rglob("*.png")] and REFUSED, ()),
    **{f"picture: {name}": (partial(_named, name=text + b".png", broken=False), ()) for name, text in NAMES.items()},
    **{
        f"broken picture: {name}": (partial(_named, name=text + b".png", broken=True), ())
        for name, text in NAMES.items()
    },
    **{
        f"class: {name}": (partial(_class_named, name=text.decode()), ())
        for name, text in NAMES.items()
        if name != "no UTF-8"
    },
}


def trees() -> Iterator[Hostile]:
    """Folders whose classes, links and names are not what they should be."""
    for name, (change, options) in TREES.items():
        yield Hostile(f"folder: {name}", _tree(change), "folder:set", options)
