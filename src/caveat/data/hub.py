"""Sets from the Hugging Face hub, by its own library."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from caveat.data.encoded import from_encoded
from caveat.data.parquet import LABEL_COLUMNS
from caveat.data.pictures import Form
from caveat.data.source import Indices, Source
from caveat.errors import DataError, MissingExtraError

__all__ = ["available", "fetched", "of_pictures", "open_hub", "picture_column"]


def available() -> bool:
    """Whether the library `datasets` is installed."""
    return find_spec("datasets") is not None


def fetched(repository: str, split: str = "test", *, name: str) -> Any:
    """The table `repository` ("org/name") of the hub, downloaded once and cached by `datasets`.

    Code of the repository is never run: `datasets` below version 4 could do so, and is refused.

    Raises
    ------
    MissingExtraError
        If `datasets` is not installed.
    DataError
        If there is no such set or split, or it is empty.
    """
    if not available():
        raise MissingExtraError("datasets", "hf", f"the set {name!r}")
    import datasets  # pyright: ignore[reportMissingImports] # an extra

    if int(str(datasets.__version__).split(".")[0]) < 4:
        raise DataError(
            f"{name}: datasets {datasets.__version__} may run code of a repository: expected version 4 or newer; "
            "install it with  pip install 'datasets>=4'"
        )
    try:
        table: Any = datasets.load_dataset(repository, split=split)
    except Exception as error:  # whatever the network, the hub and the files may raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{name}: cannot load {repository!r}, split {split!r}, from the hub ({reason})") from None
    if not len(table):
        raise DataError(f"{name}: split {split!r} of {repository!r} is empty")
    return table


def picture_column(table: Any) -> str | None:
    """The column of pictures of a table of the hub, if it has one."""
    import datasets  # pyright: ignore[reportMissingImports] # an extra

    return next((key for key, kind in table.features.items() if isinstance(kind, datasets.Image)), None)


def open_hub(repository: str, split: str = "test", *, name: str, batch: int = 256, form: Form | None = None) -> Source:
    """The set of pictures `repository` of the hub, as `fetched` gives it, read batch by batch.

    A row without the bytes of its picture may name a file of the set's own folder, and no other file of this machine.

    Raises
    ------
    MissingExtraError, DataError
        As `fetched`; or if it holds no pictures, or one lies outside of the set (then: when it is read).
    """
    return of_pictures(fetched(repository, split, name=name), repository, name=name, batch=batch, form=form)


def of_pictures(table: Any, repository: str, *, name: str, batch: int = 256, form: Form | None = None) -> Source:
    """The same of a table that was fetched."""
    import datasets  # pyright: ignore[reportMissingImports] # an extra

    column = picture_column(table)
    if column is None:
        raise DataError(
            f"{name}: no pictures in {repository!r}, and no column 'text', only the columns {list(table.features)}"
        )
    label = next((wanted for wanted in LABEL_COLUMNS if wanted in table.features), None)
    encoded: Any = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    labels = torch.as_tensor(table[label][:], dtype=torch.int64) if label else torch.full((len(table),), -1)
    names = getattr(table.features[label], "names", None) if label else None

    def fetch(chunks: Iterable[Indices]) -> Iterator[tuple[list[int], list[bytes | Path]]]:
        for chunk in chunks:
            indices: list[int] = chunk.tolist()
            yield (
                indices,
                [item["bytes"] or _inside(repository, item["path"], name) for item in encoded[indices][column]],
            )

    return from_encoded(
        fetch,
        labels,
        name=name,
        classes=tuple(names) if names else None,
        batch=batch,
        form=form or Form(),
        place=lambda index: f"picture {index}",
    )


def _home(repository: str) -> Path:
    """The only folder of this machine whose files the set may name."""
    if Path(repository).is_dir():
        return Path(repository).resolve()
    from huggingface_hub import constants  # pyright: ignore[reportMissingImports] # comes with datasets

    return Path(constants.HF_HUB_CACHE).resolve() / f"datasets--{repository.replace('/', '--')}"


def _inside(repository: str, path: object, name: str) -> Path:
    place = Path(str(path)).resolve()
    if path is None or not place.is_relative_to(_home(repository)):
        raise DataError(f"{name}: a row holds no picture but names a file outside of the set ({str(path)!r})")
    return place
