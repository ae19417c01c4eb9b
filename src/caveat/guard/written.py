"""Verdicts as `caveat guard run` wrote them: one Parquet file, or the files of a folder in the order of their names."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caveat.errors import DataError
from caveat.files import reason

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["batches", "files", "shard"]

ROWS = 4096
"""Verdicts that are read at once."""


_SHARD = re.compile(r"verdicts-(\d{5,})\.parquet")


def shard(folder: Path, number: int) -> Path:
    """The file of a part of the verdicts; parts are numbered from 0."""
    return folder / f"verdicts-{number:05d}.parquet"


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
    parts = [file for file in found if path.is_dir() and _SHARD.fullmatch(file.name)]
    lost = next((number for number, file in enumerate(parts) if file != shard(path, number)), None)
    if lost is not None:
        raise DataError(
            f"verdicts: {path} lacks {shard(path, lost).name} and has later ones; the same caveat guard run into it "
            "writes what is missing"
        )
    return found


def _order(file: Path) -> tuple[str, int]:
    """By name; numbered parts by their number, which may outgrow its digits."""
    numbered = _SHARD.fullmatch(file.name)
    return ("verdicts-", int(numbered[1])) if numbered else (file.name, 0)


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
