"""A folder of picture files, one subfolder a class."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from caveat.data.encoded import from_encoded
from caveat.data.pictures import Form
from caveat.data.source import Indices, Source
from caveat.errors import DataError

__all__ = ["SUFFIXES", "open_folder"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

SYSTEM = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
"""Folders that systems leave behind: no classes."""

NO_FILE = "are links to nothing or no files, and were passed over"
FOLDER_LINK = "are links to folders inside of a class, and were not followed"
FILE_LINK = "are links to files outside of the set"
"""What may be odd about an entry of the set, in words that follow its number."""


def open_folder(path: Path, *, name: str, batch: int = 256, form: Form | None = None) -> Source:
    """A set of picture files: `path/CLASS/**/FILE`, or `path/FILE` for pictures of no class (label -1).

    Classes are numbered in the order of their names, pictures sorted by path within them. Hidden files, files that are
    not pictures by their suffix and linked folders in a class are passed over, linked pictures and classes are followed
    (`Source.notes` tell of all but hidden ones). Pictures are decoded batch by batch.

    Raises
    ------
    DataError
        If there is no such folder or picture, pictures lie both beside and in subfolders, a folder cannot be read, is a
        link to the set itself or has a name that is not UTF-8.
    """
    if not path.is_dir():
        raise DataError(f"{name}: there is no folder {path}")
    skipped, odd = Counter[str](), dict[str, list[str]]()
    flat = _pictures(path, path, name, skipped, odd, deep=False)
    folders = [entry for entry in sorted(path.iterdir()) if _is_class(entry, path, name)]
    inside = [
        (file, label) for label, folder in enumerate(folders) for file in _pictures(folder, path, name, skipped, odd)
    ]
    if flat and inside:
        raise DataError(f"{name}: pictures both in {path} itself and in subfolders: expected one or the other")
    if not flat and not inside:
        raise DataError(f"{name}: no pictures ({', '.join(SUFFIXES)}) in {path}")
    files = flat or [file for file, _ in inside]
    labels = [label for _, label in inside] or [-1] * len(flat)
    used = set(labels)

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
        place=lambda index: _shown(files[index], path),
        notes=_notes(name, skipped, odd, [folder.name for k, folder in enumerate(folders) if inside and k not in used]),
    )


def _is_class(entry: Path, root: Path, name: str) -> bool:
    """Whether an entry of the set's folder is a class; refuse one that cannot be right."""
    if not entry.is_dir() or entry.name.startswith(".") or entry.name in SYSTEM:
        return False
    if root.resolve().is_relative_to(entry.resolve()):
        raise DataError(f"{name}: {entry} is a link to the set itself: remove it")
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{name}: the name of the folder {entry!a} is not UTF-8: rename it") from None
    return True


def _pictures(
    folder: Path, root: Path, name: str, skipped: Counter[str], odd: dict[str, list[str]], *, deep: bool = True
) -> list[Path]:
    """The picture files of a folder; the suffixes of what else is there are counted, and what is odd is collected."""

    def note(path: Path, kind: str) -> None:
        odd.setdefault(kind, []).append(_shown(path, root))

    def refuse(error: OSError) -> None:
        raise DataError(f"{name}: cannot read {error.filename} ({error.strerror})") from None

    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [entry for entry in folders if deep and not entry.startswith(".")]
        for entry in folders:
            if (Path(place) / entry).is_symlink():
                note(Path(place) / entry, FOLDER_LINK)
        for file in (Path(place) / entry for entry in files if not entry.startswith(".")):
            link = file.is_symlink()
            if (link and not file.exists()) or (file.suffix.lower() in SUFFIXES and not file.is_file()):
                note(file, NO_FILE)
            elif file.suffix.lower() not in SUFFIXES:
                skipped[file.suffix.lower() or "no suffix"] += 1
            else:
                found.append(file)
                if link and not file.resolve().is_relative_to(root.resolve()):
                    note(file, FILE_LINK)
    return sorted(found)


def _shown(path: Path, root: Path) -> str:
    """A path below the set's folder, for people: bytes that are no UTF-8, which no file could hold, are escaped."""
    return os.fsencode(path.relative_to(root)).decode(errors="backslashreplace")


def _notes(name: str, skipped: Counter[str], odd: Mapping[str, Sequence[str]], empty: Sequence[str]) -> tuple[str, ...]:
    """What was passed over, what lies elsewhere, and what may be no class."""
    notes: list[str] = []
    if skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
        notes.append(f"{name}: {skipped.total()} files are no pictures that are read, by their suffix: {kinds}")
    notes += [f"{name}: {len(paths)} of its entries {kind}, such as {paths[0]}" for kind, paths in odd.items()]
    if empty:
        notes.append(f"{name}: empty folders count as classes, and shift the labels after them: {', '.join(empty[:5])}")
    return tuple(notes)
