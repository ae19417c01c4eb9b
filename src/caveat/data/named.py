"""Sets with a name of their own: where they may lie on this machine, and what the hub calls them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caveat.data import hub
from caveat.data.idx import open_idx
from caveat.data.parquet import open_parquet
from caveat.data.pictures import Form
from caveat.data.source import Source
from caveat.errors import DataError

if TYPE_CHECKING:
    from caveat.data.texts import Texts

__all__ = ["Builtin", "Hosted", "missing", "open_fashion_mnist", "open_hosted", "under_root"]

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass(frozen=True)
class Builtin:
    """A set with a reader of its own: `open(split, name=..., batch=...)`. The first of `splits` is the default."""

    open: "Callable[..., Source | Texts]"
    what: str
    """What it is, in one line."""
    splits: tuple[str, ...] = ("test", "train")


@dataclass(frozen=True)
class Hosted:
    """Parquet files `folder/SPLIT-*.parquet` under CAVEAT_DATA, else the set `hub` of the Hugging Face hub."""

    folder: str
    what: str
    """What it is, in one line."""
    hub: str | None = None
    splits: tuple[str, ...] = ("test", "train")


def open_hosted(hosted: Hosted, split: str, *, name: str, batch: int = 256, form: Form | None = None) -> Source:
    """Open a set that lies under CAVEAT_DATA, or else comes from the hub.

    Raises
    ------
    DataError
        If it is in neither place; the message tells both ways.
    """
    folder = under_root(hosted.folder)
    files = sorted(folder.glob(f"{split}-*.parquet")) if folder else []
    if files:
        return open_parquet(files, name=name, batch=batch, form=form)
    if hosted.hub and hub.available():
        return hub.open_hub(hosted.hub, split, name=name, batch=batch, form=form)
    raise missing(name, f"{hosted.folder}/{split}-*.parquet", hosted.hub)


def open_fashion_mnist(split: str, *, name: str, batch: int = 256) -> Source:
    """Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 28x28 (Xiao, Rasul and Vollgraf, arXiv:1708.07747).

    Taken from `fashion-mnist/` under CAVEAT_DATA, the Debian package dataset-fashion-mnist, or the hub.

    Raises
    ------
    DataError
        If it is in none of these places.
    """
    for folder in (under_root("fashion-mnist"), _DEBIAN):
        if folder and folder.is_dir():
            return open_idx(folder, split, name=name, batch=batch, classes=_FASHION)
    repository = "zalando-datasets/fashion_mnist"
    if hub.available():
        return hub.open_hub(repository, split, name=name, batch=batch)
    raise missing(name, "fashion-mnist/*-ubyte.gz", repository)


def under_root(folder: str) -> Path | None:
    """`folder` under CAVEAT_DATA; None if that is not set."""
    root = os.environ.get("CAVEAT_DATA")
    return Path(root).expanduser() / folder if root else None


def missing(name: str, files: str, repository: str | None = None) -> DataError:
    """What to say of a set that is nowhere: both ways to it."""
    root = os.environ.get("CAVEAT_DATA")
    local = f"no {files} under CAVEAT_DATA={root}" if root else f"set CAVEAT_DATA to a folder that holds {files}"
    download = f"; or download {repository} with  pip install 'caveat[hf]'" if repository else ""
    return DataError(f"{name}: not found: {local}{download}")
