"""A Parquet file of verdicts, one a sample, of one run: what `certify` and `attack` write, and go on with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caveat.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

SETTINGS = b"caveat"
"""Under this name the file keeps what it was made with."""
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

    from caveat.files import parse_json

    try:
        table = pq.read_table(output)
    except (OSError, pa.ArrowException):
        table = None
    about = None if table is None else (table.schema.metadata or {}).get(SETTINGS)
    if table is None or about is None:
        raise OptionError(
            f"-o: {output} was not written by caveat {command} and would be replaced; choose another file"
        )
    there = parse_json(about.decode(), name="-o", where=str(output))
    there = there if isinstance(there, dict) else {}
    differing = next((key for key in settings if there.get(key) != settings[key]), None)
    if differing is not None:
        raise OptionError(
            f"-o: {output} holds verdicts of a run with {differing} = {there.get(differing)!r}, this run has "
            f"{settings[differing]!r}; choose another file"
        )
    return table.to_pylist()


def warned(output: Path) -> list[str]:
    """The warnings that a stopped run had come to, as `write` keeps them under `notes` beside the settings."""
    if not output.exists():
        return []
    import pyarrow.parquet as pq

    from caveat.files import parse_json

    about = (pq.read_schema(output).metadata or {}).get(SETTINGS, b"{}")
    there = parse_json(about.decode(), name="-o", where=str(output))
    return list(map(str, there.get("notes", []))) if isinstance(there, dict) else []


def write(
    rows: Sequence[Mapping[str, Any]], output: Path, settings: Mapping[str, Any], kinds: Mapping[str, "pa.DataType"]
) -> None:
    """All rows at once, with what they were made with."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from caveat.files import replacing

    schema = pa.schema(dict(kinds), metadata={SETTINGS: json.dumps(settings)})
    with replacing(output) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)
