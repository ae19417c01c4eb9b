"""A Parquet file of verdicts, one a sample, of one run, with what it was made with, so that a stopped run goes on."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caveat.errors import OptionError
from caveat.files import parse_json, reason, replacing

if TYPE_CHECKING:
    import pyarrow as pa

SETTINGS = b"caveat"
"""Under this name the file keeps what it was made with."""
HASHED = {"command": "another command", "test": "other data", "weights": "other weights of the network"}
"""What to say of settings that are hashes, which tell a reader nothing, or that are not asked for."""
OFTEN = 10.0
"""Seconds after which what is done is written."""


def begun(output: Path, settings: Mapping[str, Any], *, command: str) -> list[dict[str, Any]]:
    """What a run of the same settings left there.

    Raises
    ------
    OptionError
        If the file is of another run, or was not written by this command.
    """
    if not output.exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_same(output, settings, command=command)
    try:
        return pq.read_table(output).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise OptionError(f"-o: {output} is damaged ({reason(error)}); remove it, or choose another file") from None


def check_same(output: Path, settings: Mapping[str, Any], *, command: str, where: str = "file") -> int:
    """How many verdicts a file of a run of the same settings holds, of which its end alone is read.

    Raises
    ------
    OptionError
        If it is of another run, or was not written by this command; then another `where` should be chosen.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    about, count = None, 0
    with suppress(OSError, pa.ArrowException), pq.ParquetFile(output) as opened:
        about, count = (opened.schema_arrow.metadata or {}).get(SETTINGS), opened.metadata.num_rows
    if about is None:
        raise OptionError(
            f"-o: {output} was not written by caveat {command} and would be replaced; choose another {where}"
        )
    there = parse_json(about.decode(), name="-o", where=str(output))
    there = there if isinstance(there, dict) else {}
    differing = next((key for key in settings if there.get(key) != settings[key]), None)
    if differing is not None:
        was = HASHED.get(differing) or f"{differing} = {there.get(differing)!r}, this run has {settings[differing]!r}"
        raise OptionError(f"-o: {output} holds verdicts of a run with {was}; choose another {where}")
    return count


def warned(output: Path) -> list[str]:
    """The warnings that a stopped run had come to, as `write` keeps them under `notes` beside the settings."""
    if not output.exists():
        return []
    import pyarrow.parquet as pq

    about = (pq.read_schema(output).metadata or {}).get(SETTINGS, b"{}")
    there = parse_json(about.decode(), name="-o", where=str(output))
    return list(map(str, there.get("notes", []))) if isinstance(there, dict) else []


def told(settings: Mapping[str, Any]) -> dict[bytes, str]:
    """What a file is made with, as its schema keeps it."""
    return {SETTINGS: json.dumps(settings)}


def write(
    rows: Sequence[Mapping[str, Any]], output: Path, settings: Mapping[str, Any], kinds: Mapping[str, "pa.DataType"]
) -> None:
    """All rows at once, with what they were made with."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(dict(kinds), metadata=told(settings))
    with replacing(output) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)
