"""`caveat guard run`: verdicts on a set, as Parquet."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import typer

from caveat.cli.checks import output_file
from caveat.cli.options import DEVICE, WORKERS
from caveat.cli.terminal import echo

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from caveat.data import Bound
    from caveat.guard.guard import Guard
    from caveat.guard.verdict import Verdict

NAME = "run"


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard."),
    data: str = typer.Argument(
        ...,
        metavar="DATA",
        help="The data, for instance folder:new/ or mnist:test; noise:uniform is 1,000 inputs of the guard's shape.",
    ),
    output: Path = typer.Option(Path("verdicts.parquet"), "-o", "--output", help="Parquet file for the verdicts."),
    model: str | None = typer.Option(
        None, help="The network the guard was made for: package.module:callable or hf:name."
    ),
    batch: int = typer.Option(256, min=1, help="Batch size of the forward passes."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of generated data."),
    device: str = DEVICE,
    dtype: str | None = typer.Option(
        None, help="Another precision than the guard was fitted in, which is what it runs in by default."
    ),
    workers: int = WORKERS,
) -> None:
    """Predict or abstain for every input of a data set; batch by batch, whatever its size."""
    output_file("-o", output, (".parquet",))
    import pyarrow.parquet as pq

    from caveat import data as sources
    from caveat import devices
    from caveat.cli import model as models
    from caveat.cli.guard.verdicts import named_network
    from caveat.files import replacing
    from caveat.guard import artefact, stored

    place = devices.check(device, dtype)
    if (task := stored.task_of(guard)) != "classification":
        from caveat.cli.guard import multilabel, regression

        other = {"regression": regression, "multilabel": multilabel}[task]
        return other.run(
            guard, data, output, model=model, batch=batch, seed=seed, device=device, dtype=dtype, workers=workers
        )
    made = artefact.manifest(guard)
    bare = models.load(named_network(model, made))
    network = artefact.load(guard, bare).to(place)
    network.decision = replace(network.decision, dtype=dtype or made.dtype)
    shape = network.decision.shape
    like = sources.generated.blank((shape[0], shape[1], shape[2]), name=data) if len(shape) == 3 else None
    read = sources.read(data, batch=batch, like=like, seed=seed, workers=workers, columns=made.columns)
    source = sources.bound(read, bare)
    column = "text" if isinstance(source, sources.Encoded) else "file"
    writer: pq.ParquetWriter | None = None
    counts, start, example = [0, 0, 0], 0, ""
    with replacing(output) as temporary:
        for positions, inputs in source.chunks():
            verdict = network(inputs)
            places = None if source.place is str else list(map(source.place, positions.tolist()))
            table = _table(verdict, start, column, places, _names(source, positions))
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
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
    _say_where(network, made.dtype)
    for note in source.notes:
        echo(note)
    return echo(f"Verdicts are in {output}; another threshold: caveat guard tune {quote(str(guard))} --keep 0.99")


def _say_where(network: "Guard", fitted: str) -> None:
    from caveat import devices

    used = network.decision.dtype
    echo(f"The network ran on {devices.title(devices.of(network))}, in {used}.")
    if used != fitted:
        echo(
            f"The guard was fitted in {fitted}: inputs near its threshold may be decided otherwise in {used}, and its "
            f"guarantee holds for {fitted} alone."
        )


def _names(source: "Bound", positions: "Tensor") -> list[str | None]:
    """The class of each input as the data set has it, by name: its numbers may not be the guard's; None without one."""
    names = source.classes
    return [None if label < 0 else names[label] if names else str(label) for label in source.labels[positions].tolist()]


def _table(
    verdict: "Verdict", start: int, column: str, places: list[str] | None, truth: list[str | None]
) -> "pa.Table":
    """The verdicts as rows, the first of them numbered `start`; `column` says where each input is, or what it is."""
    import pyarrow as pa

    from caveat.guard.verdict import REASONS

    return pa.table(
        {
            "index": pa.array(range(start, start + len(verdict)), pa.int64()),
            column: pa.array([None] * len(verdict) if places is None else places, pa.string()),
            "true_name": pa.array(truth, pa.string()),
            "accepted": pa.array(verdict.accepted.tolist()),
            "predicted": pa.array(verdict.predicted.tolist(), pa.int64()),
            "predicted_name": pa.array([verdict.classes[i] for i in verdict.predicted.tolist()]),
            "confidence": pa.array(verdict.confidence.tolist(), pa.float64()),
            "score": pa.array(verdict.score.tolist(), pa.float64()),
            "p_value": pa.array(verdict.p_value.tolist(), pa.float64()),
            "aleatoric": pa.array(verdict.aleatoric.tolist(), pa.float64()),
            "epistemic": pa.array(_or_none(verdict.epistemic, len(verdict)), pa.float64()),
            "reason": pa.array([REASONS[i] for i in verdict.reason.tolist()]),
            "probs": pa.array(verdict.probs.tolist(), pa.list_(pa.float64())),
        }
    )


def _or_none(values: "Tensor | None", count: int) -> list[float | None]:
    return [None] * count if values is None else values.tolist()
