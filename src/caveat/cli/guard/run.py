"""`caveat guard run`: verdicts on a set, as Parquet."""

from functools import partial
from pathlib import Path
from shlex import quote

import typer

from caveat.cli.options import DEVICE, WORKERS
from caveat.cli.terminal import echo
from caveat.errors import OptionError, known_name

NAME = "run"
ENGINES = ("local", "ray")
ROWS = 50_000
"""Verdicts in a file of a folder."""


def run(
    guard: Path = typer.Argument(..., help="Folder of the guard, or the .onnx file that it was exported as."),
    data: str = typer.Argument(
        ...,
        metavar="DATA",
        help="The data, for instance folder:new/ or mnist:test; noise:uniform is 1,000 inputs of the guard's shape.",
    ),
    output: Path = typer.Option(
        Path("verdicts.parquet"),
        "-o",
        "--output",
        help="Parquet file for the verdicts; or a folder, in which a run that was stopped goes on where it was.",
    ),
    model: str | None = typer.Option(
        None,
        help="The network the guard was made for: package.module:callable or hf:name; an exported guard holds it.",
    ),
    batch: int = typer.Option(256, min=1, help="Batch size of the forward passes."),
    rows: int | None = typer.Option(None, min=1, help=f"Verdicts in each file of a folder; {ROWS:,} by default."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of generated data."),
    device: str = DEVICE,
    dtype: str | None = typer.Option(
        None, help="Another precision than the guard was fitted in, which is what it runs in by default."
    ),
    workers: int = WORKERS,
    engine: str = typer.Option(
        "local",
        help="local, or ray: a process of Ray for each processor, each of which writes whole files (extra ray).",
    ),
    address: str | None = typer.Option(None, help="Of --engine ray, the cluster; by default one on this machine."),
) -> None:
    """Predict or abstain for every input of a data set; batch by batch, whatever its size.

    With a folder as output, verdicts are written in files of a fixed number of rows. The same command goes on with the
    first that is missing; another run into the same folder is refused.
    """
    from caveat.cli.guard import classification, cluster, exported, multilabel, regression, verdicts
    from caveat.guard import stored

    _check(output, rows, engine, address)
    tasks = {
        "classification": classification.answering,
        "regression": regression.answering,
        "multilabel": multilabel.answering,
    }
    is_graph = exported.is_exported(guard)
    answering = exported.answering if is_graph else tasks[stored.task_of(guard)]
    make = partial(
        answering, guard, data, model=model, batch=batch, seed=seed, device=device, dtype=dtype,
        workers=workers,
    )  # fmt: skip
    elsewhere = None if engine == "local" else partial(cluster.answer_all, make, address=address)
    verdicts.write(make(), output, data=data, seed=seed, rows=rows or ROWS, engine=elsewhere)
    if not is_graph:
        echo(f"Another threshold: caveat guard tune {quote(str(guard))} --keep 0.9")


def _check(output: Path, rows: int | None, engine: str, address: str | None) -> None:
    """Refuse what does not go together, before anything is loaded."""
    from caveat.cli.guard import cluster, verdicts

    verdicts.check_output(output)
    known_name("--engine", engine, ENGINES)
    one_file = bool(output.suffix) and not output.is_dir()
    if rows is not None and one_file:
        raise OptionError(f"--rows: {output} is one file; name a folder with -o, or leave the option out")
    if engine == "local" and address is not None:
        raise OptionError("--address: it is for --engine ray; leave it out")
    if engine == "ray":
        cluster.check()
        if one_file:
            raise OptionError(f"--engine ray: {output} is one file, and every process writes its own; name a folder")
