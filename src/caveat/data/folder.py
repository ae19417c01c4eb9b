"""A folder of picture files, one subfolder a class."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from caveat.data.encoded import from_encoded
from caveat.data.pictures import Form
from caveat.data.source import Indices, Source
from caveat.errors import DataError

__all__ = ["SUFFIXES", "open_folder"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def open_folder(path: Path, *, name: str, batch: int = 256, form: Form | None = None) -> Source:
    """A set of picture files: `path/CLASS/**/FILE`, or `path/FILE` for pictures of no class (label -1).

    Classes are numbered in the order of their names, pictures sorted by path within them. Hidden files and files that
    are not pictures by their suffix are passed over. Pictures are decoded batch by batch.

    Raises
    ------
    DataError
        If there is no such folder or picture, pictures lie both beside and in subfolders, or one is broken (then: when
        it is read).
    """
    if not path.is_dir():
        raise DataError(f"{name}: there is no folder {path}")
    flat = _pictures(path, "*")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    inside = [(file, label) for label, folder in enumerate(folders) for file in _pictures(folder, "**/*")]
    if flat and inside:
        raise DataError(f"{name}: pictures both in {path} itself and in subfolders: expected one or the other")
    if not flat and not inside:
        raise DataError(f"{name}: no pictures ({', '.join(SUFFIXES)}) in {path}")
    files = flat or [file for file, _ in inside]
    labels = [label for _, label in inside] or [-1] * len(flat)

    def fetch(chunks: Iterable[Indices]) -> Iterator[tuple[list[int], list[Path]]]:
        for chunk in chunks:
            indices: list[int] = chunk.tolist()
            yield indices, [files[index] for index in indices]

    return from_encoded(
        fetch,
        torch.tensor(labels),
        name=name,
        classes=tuple(folder.name for folder in folders) if inside else None,
        batch=batch,
        form=form or Form(),
        place=lambda index: str(files[index].relative_to(path)),
    )


def _pictures(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        file
        for file in folder.glob(pattern)
        if file.suffix.lower() in SUFFIXES and file.is_file() and not _hidden(file.relative_to(folder))
    )


def _hidden(path: Path) -> bool:
    """Whether a file or a folder on the way to it is hidden: thumbnails and checkpoints of other programs."""
    return any(part.startswith(".") for part in path.parts)
