"""A Parquet file of verdicts, one a sample, of one run, with what it was made with, so that a stopped run goes on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caveat.errors import DataError, OptionError
from caveat.files import reason, replacing

if TYPE_CHECKING:
    import pyarrow as pa

HASHED = {
    "test": "other data", "content": "other data, which has changed",
    "weights": "other weights of the network", "guard": "another guard, or another threshold of it",
    "start": "other inputs: it is the copy of another part",
}  # fmt: skip
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


def check_own(output: Path, *, command: str, where: str = "file") -> tuple[dict[str, Any], int]:
    """What a file of verdicts that this command wrote was made with, and how many they are.

    Raises
    ------
    OptionError
        If it is damaged, or somebody else's; then another `where` should be chosen.
    """
    from caveat.guard.written import about

    try:
        there, count = about(output, name="-o")
    except DataError:
        raise OptionError(
            f"-o: {output} was not written by caveat {command}, or is damaged, and would be replaced; choose another "
            f"{where}"
        ) from None
    if there is None or there.get("command", command) != command:
        raise OptionError(
            f"-o: {output} was not written by caveat {command} and would be replaced; choose another {where}"
        )
    return there, count


def check_same(output: Path, settings: Mapping[str, Any], *, command: str, where: str = "file") -> int:
    """How many verdicts a file of a run of the same settings holds, of which its end alone is read.

    Raises
    ------
    OptionError
        If it is of another run, or was not written by this command; then another `where` should be chosen.
    """
    there, count = check_own(output, command=command, where=where)
    differing = next((key for key in settings if there.get(key) != settings[key]), None)
    if differing is not None and differing not in there:
        raise OptionError(
            f"-o: {output} does not say its {differing}, as it has to: another version of Caveat wrote it; choose "
            f"another {where}"
        )
    if differing is not None:
        was = HASHED.get(differing) or f"{differing} = {there.get(differing)!r}, this run has {settings[differing]!r}"
        raise OptionError(f"-o: {output} holds verdicts of a run with {was}; choose another {where}")
    return count


def warned(output: Path) -> list[str]:
    """The warnings that a stopped run had come to, as `write` keeps them under `notes` beside the settings."""
    from caveat.guard.written import about

    there = about(output, name="-o")[0] if output.exists() else None
    return list(map(str, (there or {}).get("notes", [])))


def told(settings: Mapping[str, Any]) -> dict[bytes, str]:
    """What a file is made with, as its schema keeps it."""
    from caveat.guard.written import SETTINGS

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
