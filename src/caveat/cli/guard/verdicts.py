"""Verdicts of a guard on every row of a set, batch by batch, as Parquet."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from caveat.cli.terminal import echo
from caveat.errors import DataError, ModelError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.data import Numbers, Source
    from caveat.guard.stored import Sealed

__all__ = ["in_precision", "named_network", "opened", "write"]

PICTURE = 3
"""Axes of one picture."""


def named_network(model: str | None, made: "Sealed") -> str:
    """The network's name, which a guard does not give.

    Raises
    ------
    ModelError
        If it is missing.
    """
    if model is None:
        raise ModelError(
            "--model: a guard names no code that would be run; name the network it was made for"
            + (f" (its manifest says: {made.model})" if made.model else "")
        )
    return model


def opened(
    data: str,
    *,
    shape: Sequence[int],
    columns: Sequence[str] | None,
    batch: int,
    seed: int,
    workers: int = 0,
    several: bool = False,
) -> "Source | Numbers":
    """A set as a guard of another task than classification takes it: a table with its columns, or pictures.

    `shape` and `columns` are those of the inputs that the guard was fitted on.

    Raises
    ------
    OptionError, DataError
        As `data.read`; if it holds texts, or a column is missing.
    """
    from caveat import data as sources
    from caveat.data.numbers import named

    like = None
    if len(shape) == PICTURE:
        like = sources.generated.blank((shape[0], shape[1], shape[2]), name=data)
    found = sources.read(data, batch=batch, like=like, seed=seed, workers=workers, several=several, columns=columns)
    if isinstance(found, sources.Texts):
        raise DataError(f"{data}: holds texts, the guard was fitted on numbers")
    return named(found, columns) if isinstance(found, sources.Numbers) else found


def in_precision(guard: Any, dtype: str | None) -> None:
    """Run the guard in another precision than it was fitted in, if one is named, and say what that means."""
    fitted = guard.decision.dtype
    if dtype is not None and dtype != fitted:
        guard.decision = replace(guard.decision, dtype=dtype)
        echo(
            f"The guard was fitted in {fitted}: inputs near its threshold may be decided otherwise in {dtype}, and its "
            f"guarantee holds for {fitted} alone."
        )


def write(
    guard: Callable[[Any], Any],
    source: "Source | Numbers",
    table: "Callable[[Any, int, Tensor], pa.Table]",
    output: Path,
    folder: Path,
) -> None:
    """Ask the guard, write what `table` makes of its verdicts (of which the first is so numbered, at these positions),
    and say how many were accepted.
    """
    import pyarrow.parquet as pq

    from caveat.files import replacing

    writer: pq.ParquetWriter | None = None
    counts, start, example = [0, 0, 0], 0, ""
    with replacing(output) as temporary:
        for positions, inputs in source.chunks():
            verdict = guard(inputs)
            found = table(verdict, start, positions)
            writer = writer or pq.ParquetWriter(temporary, found.schema)
            writer.write_table(found)
            for reason in verdict.reason.tolist():
                counts[reason] += 1
            if not example and not bool(verdict.accepted.all()):
                row = int((~verdict.accepted).nonzero()[0])
                example = f"For instance input {start + row}: {verdict.explain(row)}."
            start += len(verdict)
        if writer is not None:
            writer.close()
    echo(
        f"{start} inputs: {counts[0]} accepted ({counts[0] / max(1, start):.1%}), {counts[1]} abstained, "
        f"{counts[2]} invalid. {example}"
    )
    echo(f"Verdicts are in {output}; another threshold: caveat guard tune {quote(str(folder))} --keep 0.99")
