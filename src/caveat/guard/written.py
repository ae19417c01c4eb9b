"""Verdicts as `caveat guard run` wrote them: one Parquet file, or the files of a folder in the order of their names."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caveat.errors import DataError
from caveat.files import parse_json, reason

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SETTINGS", "about", "batches", "files", "shard", "shard_number"]

SETTINGS = b"caveat"
"""Under this name the schema of a file keeps, as JSON, what its verdicts were made with."""

ROWS = 4096
"""Verdicts that are read at once."""


_SHARD = re.compile(r"verdicts-(\d{5,})\.parquet")


def shard(folder: Path, number: int) -> Path:
    """The file of a part of the verdicts; parts are numbered from 0."""
    return folder / f"verdicts-{number:05d}.parquet"


def shard_number(path: Path) -> int | None:
    """Which part of the verdicts a file is; None of another name."""
    numbered = _SHARD.fullmatch(path.name)
    return None if numbered is None else int(numbered[1])


def files(path: str | Path) -> list[Path]:
    """The Parquet files of verdicts at a path.

    Raises
    ------
    DataError
        If there are none, or one of the numbered parts of a run is missing between others.
    """
    path = Path(path)
    found = sorted(path.glob("*.parquet"), key=_order) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise DataError(
            f"verdicts: expected a Parquet file of verdicts, or a folder of them, got {path}; make it with  "
            "caveat guard run GUARD DATA -o verdicts.parquet"
        )
    parts = [file for file in found if path.is_dir() and shard_number(file) is not None]
    lost = next((number for number, file in enumerate(parts) if file != shard(path, number)), None)
    if lost is not None:
        raise DataError(
            f"verdicts: {path} lacks {shard(path, lost).name} and has later ones; the same caveat guard run into it "
            "writes what is missing"
        )
    return found


def _order(file: Path) -> tuple[str, int]:
    """By name; numbered parts by their number, which may outgrow its digits."""
    number = shard_number(file)
    return (file.name, 0) if number is None else ("verdicts-", number)


def about(path: Path, *, name: str = "verdicts") -> tuple[dict[str, Any] | None, int]:
    """What a file of verdicts was made with, None where it does not say, and how many they are.

    Raises
    ------
    DataError
        If it is no whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            told, count = (opened.schema_arrow.metadata or {}).get(SETTINGS), opened.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: {path} is no whole Parquet file ({reason(error)})") from None
    there = None if told is None else parse_json(told.decode(), name=name, where=str(path))
    return there if isinstance(there, dict) else None, count


def batches(path: str | Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> Iterator["pa.RecordBatch"]:
    """The verdicts in the order in which they were made, some thousand at a time, with these columns.

    Raises
    ------
    DataError
        If a file can't be read, or lacks one of `columns`; those of `optional` may be missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files(path):
        try:
            with pq.ParquetFile(file) as opened:
                there = opened.schema_arrow.names
                lacking = [column for column in columns if column not in there]
                if lacking:
                    raise DataError(
                        f"verdicts: {file} has no column {lacking[0]!r}, so that it holds no verdicts of a guard"
                    )
                wanted = [*columns, *(column for column in optional if column in there)]
                yield from opened.iter_batches(ROWS, columns=wanted)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"verdicts: cannot read {file} ({reason(error)})") from None
