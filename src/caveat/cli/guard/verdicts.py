"""Verdicts of a guard on every input of a set, as Parquet: one file, or a folder of parts that a killed run goes on
with.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caveat.cli import verdicts
from caveat.cli.checks import output_file, output_folder
from caveat.cli.progress import counted
from caveat.cli.terminal import echo
from caveat.errors import ModelError, OptionError
from caveat.files import alone, replacing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from caveat.data import Bound, Streamed
    from caveat.guard.stored import Sealed

__all__ = [
    "Answering",
    "Engine",
    "Tally",
    "answer",
    "check_output",
    "named_network",
    "names",
    "numbers",
    "opened",
    "rows_of",
    "said",
    "write",
]

Engine = Callable[[dict[Path, range], dict[str, Any], "Tally", Callable[[int], None]], None]
"""What writes the missing files of a run: by name which inputs, the settings, the tally, and whom to tell how many."""

PICTURE = 3
"""Axes of one picture."""
COMMAND = "guard run"
SAMPLES = 8
"""Inputs by which a set is known again, beside its labels: to look at more would cost what it is to answer them."""


@dataclass(frozen=True)
class Answering:
    """A guard and the inputs that it is asked about."""

    digest: str
    """What tells the guard from another."""
    dtype: str
    ask: Callable[[Any], Any]
    """From inputs to verdicts."""
    source: "Bound | Streamed"
    table: "Callable[[Any, Tensor], pa.Table]"
    """From verdicts and their positions to rows."""
    said: Sequence[str] = ()
    """Sentences for the end."""


@dataclass
class Tally:
    """What is said of all verdicts together."""

    reasons: Counter[str] = field(default_factory=Counter[str])
    example: str = ""


def check_output(output: Path) -> None:
    """Refuse a place that verdicts can't be written to: a `.parquet` file, or a folder.

    Raises
    ------
    OptionError
        If its name says another format, or the folder holds anything but Parquet files.
    CaveatError
        If it cannot be written.
    """
    if _is_folder(output):
        output_folder(output)
        there = [path.name for path in output.iterdir()] if output.is_dir() else []
        others = sorted(name for name in there if not name.startswith(".") and not name.endswith(".parquet"))
        if others:
            raise OptionError(
                f"-o: {output} holds more than verdicts ({', '.join(others[:3])}); choose a folder of their own"
            )
    else:
        output_file("-o", output, (".parquet",))
        if output.exists():  # verdicts of an earlier run are replaced, and nothing else is
            verdicts.check_own(output, command=COMMAND)


def _is_folder(output: Path) -> bool:
    return output.is_dir() or (not output.suffix and not output.exists())


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
    model: object = None,
) -> "Bound | Streamed":
    """A set as a guard takes it: pictures, a table with its columns, or texts that `model` makes inputs of.

    `shape` and `columns` are those of the inputs that the guard was fitted on. A table may lack numbers.

    Raises
    ------
    OptionError, DataError
        As `data.read`; if it holds texts and there is no model, or a column is missing.
    """
    from caveat import data as sources
    from caveat.data.numbers import named

    like = None
    if len(shape) == PICTURE:
        like = sources.generated.blank((shape[0], shape[1], shape[2]), name=data)
    pieces = sources.streamed(data, batch=batch, columns=columns, model=model, several=several)
    if pieces is not None:
        return pieces
    found = sources.read(
        data, batch=batch, like=like, seed=seed, workers=workers, several=several, columns=columns, gaps=True
    )
    return sources.bound(named(found, columns) if isinstance(found, sources.Numbers) else found, model)


def said(guard: Any, fitted: str) -> list[str]:
    """Where the guard's network runs, and what it means if it does in another precision than it was `fitted` in."""
    from caveat import devices

    used = guard.decision.dtype
    lines = [f"The network ran on {devices.title(devices.of(guard))}, in {used}."]
    if used != fitted:
        lines.append(
            f"The guard was fitted in {fitted}: inputs near its threshold may be decided otherwise in {used}, and its "
            f"guarantee holds for {fitted} alone."
        )
    return lines


def numbers(values: "Tensor | None", count: int) -> "pa.Array":
    """A column of numbers; of nothing where they are not told."""
    import pyarrow as pa

    return pa.nulls(count, pa.float64()) if values is None else pa.array(values.double().cpu().numpy())


def rows_of(values: "Tensor") -> "pa.Array":
    """A column of lists of numbers."""
    import numpy as np
    import pyarrow as pa

    count, width = values.shape
    ends = np.arange(0, count * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), numbers(values.flatten(), count))


def names(words: Sequence[str], rows: "Tensor", *, none: "np.ndarray | None" = None) -> "pa.Array":
    """A column of words, one for each of `rows`; null where `none` says so."""
    import pyarrow as pa

    return pa.array(words, pa.string()).take(pa.array(rows.cpu().numpy(), mask=none))


def write(one: Answering, output: Path, *, data: str, seed: int, rows: int, engine: Engine | None = None) -> None:
    """Ask the guard about every input, write its verdicts, and say how many were accepted.

    In a folder every `rows` verdicts are a file, written whole or not at all; those that are there are not asked for
    again, and of them the end alone is read. What is held of the inputs and the verdicts is some batches. `engine` has
    them written elsewhere.

    Raises
    ------
    OptionError
        If the folder holds verdicts of another run, or files of somebody else.
    """
    total, folder = len(one.source.labels), _is_folder(output)
    size = rows if folder else total
    spans = [range(start, min(start + size, total)) for start in range(0, total, size)]
    ends = [end for span in spans[1:] for end in (span.start - 1, span.start)]
    settings = ({"rows": rows} if folder else {}) | _settings(one, data=data, seed=seed, ends=ends)
    tally = Tally()
    with alone(output) if folder else nullcontext():
        places = _places(output, spans, settings) if folder else {output: spans[0]}
        new = {place: span for place, span in places.items() if not folder or not place.exists()}
        _count(tally, [place for place in places if place not in new])
        with counted(total, tally.reasons.total()) as progress:
            (engine or partial(answer, one))(new, settings, tally, progress)
    _say(one, output, tally, len(places) - len(new))


def answer(
    one: Answering, new: dict[Path, range], settings: dict[str, Any], tally: Tally, progress: Callable[[int], None]
) -> None:
    """Write files, in one pass over their inputs."""
    passing = one.source.chunks(list(new.values()))
    with closing(passing):  # pyright: ignore[reportArgumentType]  # a generator
        for place, span in new.items():
            with replacing(place) as temporary:
                _save(temporary, _tables(one, passing, span, tally, progress), settings | {"start": span.start})


def _settings(one: Answering, *, data: str, seed: int, ends: Sequence[int]) -> dict[str, Any]:
    """What a run is; the batch and the device change no verdict beyond its last digits.

    Of the inputs those at the `ends` of its parts are looked at beside some others: in a set that has lost or gained
    one, others stand there.
    """
    from caveat.data import Source
    from caveat.training.run_folder import digest

    source, content = one.source, ""
    if not getattr(source, "generated", False):
        # a picture that cannot be read is an input that the guard abstains on, here too
        known = replace(source, failed={}) if isinstance(source, Source) else source
        content = digest(known, samples=SAMPLES, also=ends)
    if isinstance(source, Source) and source.place is not str:
        places = hashlib.sha256(content.encode())
        for position in range(len(source)):
            places.update(source.place(position).encode("utf-8", "surrogateescape") + b"\0")
        content = places.hexdigest()
    return {
        "command": COMMAND, "guard": one.digest, "data": data, "content": content, "count": len(source.labels),
        "seed": seed, "dtype": one.dtype,
    }  # fmt: skip


def _places(folder: Path, spans: Sequence[range], settings: dict[str, Any]) -> dict[Path, range]:
    """The files of a run, in their order; refuse a folder that holds others."""
    from caveat.guard.written import shard

    places = {shard(folder, number): span for number, span in enumerate(spans)}
    there = sorted(folder.glob("*.parquet"))
    for place in there:
        if place not in places:
            raise OptionError(f"-o: {place} is no part of this run's verdicts; choose another folder")
        own = settings | {"start": places[place].start}
        count = verdicts.check_same(place, own, command=COMMAND, where="folder, or remove it")
        if count != len(places[place]):
            raise OptionError(
                f"-o: {place} holds {count} verdicts, expected {len(places[place])}; remove it, and they are made again"
            )
    return places


def _count(tally: Tally, places: Sequence[Path]) -> None:
    """Take in the verdicts of an earlier run."""
    from caveat.guard.written import batches

    for place in places:
        for part in batches(place, ["reason"]):
            tally.reasons.update(part.column(0).to_pylist())


def _tables(
    one: Answering, passing: "Iterator[tuple[Tensor, Any]]", span: range, tally: Tally, progress: Callable[[int], None]
) -> "Iterator[pa.Table]":
    """The verdicts on the next inputs, to the end of their part."""
    from caveat.guard.verdict import REASONS

    for positions, inputs in passing:
        verdict = one.ask(inputs)
        yield one.table(verdict, positions)
        tally.reasons.update(dict(zip(REASONS, verdict.reason.bincount(minlength=len(REASONS)).tolist(), strict=True)))
        if not tally.example and not bool(verdict.accepted.all()):
            row = int((~verdict.accepted).nonzero()[0])
            tally.example = f"For instance input {int(positions[row])}: {verdict.explain(row)}."
        progress(len(positions))
        if int(positions[-1]) + 1 == span.stop:
            return


def _save(path: Path, tables: "Iterator[pa.Table]", settings: dict[str, Any]) -> None:
    """One file, in row groups that are neither tiny nor held for long."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from caveat.guard.written import ROWS

    writer: pq.ParquetWriter | None = None
    held: list[pa.Table] = []

    def flush() -> None:
        nonlocal writer
        if held:
            whole = pa.concat_tables(held).replace_schema_metadata(verdicts.told(settings))  # pyright: ignore[reportArgumentType]
            writer = writer or pq.ParquetWriter(path, whole.schema)
            writer.write_table(whole)
            held.clear()

    try:
        for table in tables:
            held.append(table)
            if sum(len(part) for part in held) >= ROWS:
                flush()
        flush()
    finally:
        if writer is not None:
            writer.close()


def _say(one: Answering, output: Path, tally: Tally, earlier: int) -> None:
    from caveat.guard.verdict import REASONS

    total = tally.reasons.total()
    accepted, abstained, invalid = (tally.reasons[reason] for reason in REASONS)
    echo(
        f"{total} inputs: {accepted} accepted ({accepted / max(1, total):.1%}), {abstained} abstained, "
        f"{invalid} invalid. {tally.example}"
    )
    if earlier:
        echo(f"Of an earlier run {earlier} files were there already; they are counted, and were not asked for again.")
    for sentence in (*one.said, *one.source.notes):
        echo(sentence)
    echo(f"Verdicts are in {output}.")
