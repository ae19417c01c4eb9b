"""`caveat certify`: for every sample of a set whether an input near it changes the answer, as Parquet."""

import math
import time
from pathlib import Path
from shlex import quote
from typing import Any

import typer

from caveat.cli.checks import existing, output_file, positive
from caveat.cli.options import NORMALIZE, WEIGHTS_KEY
from caveat.cli.terminal import echo
from caveat.cli.verdicts import OFTEN, begun, write
from caveat.errors import DataError, OptionError, known_name

NAME = "certify"
NORMS = {"1": 1, "2": 2, "inf": math.inf}


def run(
    model: str = typer.Option(..., help="package.module:callable (returns an nn.Module from inputs to logits)."),
    test: str = typer.Option(..., metavar="DATA", help="Labelled data, for instance mnist:test or folder:val/."),
    radius: float = typer.Option(..., help="Radius of the ball around every input, in the units of the data."),
    output: Path = typer.Option(
        Path("verdicts.parquet"),
        "-o",
        "--output",
        help="Parquet file for the verdicts; one that a stopped run of the same options left is gone on with.",
    ),
    weights: Path | None = typer.Option(
        None, help="Weights of the model: safetensors, or a file of torch.save (.pth, .pt, .ckpt, .bin, ...)."
    ),
    weights_key: str | None = WEIGHTS_KEY,
    normalize: str | None = NORMALIZE,
    norm: str = typer.Option("inf", help="Norm of the ball: inf, 2 or 1. Inputs stay in [0, 1]."),
    method: str = typer.Option(
        "deeppoly", help="interval, deeppoly, alpha (optimised slopes) or branch (branch and bound)."
    ),
    seconds: float | None = typer.Option(None, help="Of branch, for each sample; 60 by default."),
    batch: int = typer.Option(50, min=1, help="Samples that are bounded at once."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of the attack."),
) -> None:
    """Certify a network against adversarial inputs: for every sample verified, falsified or open.

    Verified: no input of the ball is answered otherwise than the label. Falsified: one is, and was found. Stopped and
    started again with the same options, it goes on where it was.
    """
    known_name("--norm", norm, NORMS)
    positive("--radius", [radius], zero=True)
    output_file("-o", output, (".parquet",))
    existing("--weights", weights)
    from caveat import bounds
    from caveat import data as sources
    from caveat.attacks import Ball
    from caveat.cli import model as models
    from caveat.tensors import digest as digest_of
    from caveat.training.run_folder import digest

    known_name("--method", method, bounds.METHODS)
    if seconds is not None and method != "branch":
        raise OptionError("--seconds: it is the time of --method branch; leave it out")
    positive("--seconds", [] if seconds is None else [seconds])
    found = sources.read(test, batch=batch, seed=seed)
    if not isinstance(found, sources.Source):
        raise DataError(f"--test: {test} holds no pictures, which are what a ball in [0, 1] is of")
    if bool((found.labels < 0).any()):
        raise DataError("--test: some samples have no label; a certificate is of a label")
    network = models.load(model, weights, key=weights_key, normalize=normalize, say=echo)
    settings = {
        "model": model, "weights": digest_of(network.state_dict(), {}),
        "normalize": normalize, "test": digest(found), "norm": norm,
        "radius": radius, "method": method, "seconds": seconds, "seed": seed,
    }  # fmt: skip
    rows = begun(output, settings, command=NAME)
    if rows:
        echo(f"{output} holds {len(rows)} of {len(found)} verdicts of the same run: it goes on from there.")
    ball = Ball(NORMS[norm], radius)
    _certified(network, found, ball, rows, output, settings, method=method, seconds=seconds, seed=seed)
    _told(rows, output, method)


def _certified(
    network: Any,
    found: Any,
    ball: Any,
    rows: list[dict[str, Any]],
    output: Path,
    settings: dict[str, Any],
    *,
    method: Any,
    seconds: float | None,
    seed: int,
) -> None:
    """Add a row for every sample that has none, and write them now and then."""
    import torch
    from rich.progress import track

    from caveat import bounds
    from caveat.cli.terminal import console
    from caveat.graph import trace

    left = torch.arange(len(rows), len(found))
    shown, graph, written = console(stderr=True), None, time.perf_counter()
    parts = left.split(found.batch if method in ("interval", "deeppoly") else 1)
    for part in track(parts, "certifying", console=shown, transient=True, disable=not shown.is_terminal):
        inputs, labels = found.take(part)
        graph = graph or trace(network, inputs)
        started = time.perf_counter()
        made = bounds.certify(network, inputs, labels, ball, method=method, seconds=seconds, seed=seed, graph=graph)
        with torch.no_grad():
            answers = network(inputs.clone()).argmax(1)
        spent = (time.perf_counter() - started) / len(part)
        for k, position in enumerate(part.tolist()):
            rows.append({
                "index": position, "file": None if found.place is str else found.place(position),
                "label": int(labels[k]), "predicted": int(answers[k]),
                "verdict": bounds.VERDICTS[int(made.verdict[k])], "margin": float(made.margin[k]), "seconds": spent,
            })  # fmt: skip
        if time.perf_counter() - written > OFTEN:
            _write(rows, output, settings)
            written = time.perf_counter()
    _write(rows, output, settings)


def _write(rows: list[dict[str, Any]], output: Path, settings: dict[str, Any]) -> None:
    import pyarrow as pa

    kinds = {
        "index": pa.int64(), "file": pa.string(), "label": pa.int64(), "predicted": pa.int64(),
        "verdict": pa.string(), "margin": pa.float64(), "seconds": pa.float64(),
    }  # fmt: skip
    write(rows, output, settings, kinds)


def _told(rows: list[dict[str, Any]], output: Path, method: str) -> None:
    """One line of results, and what to do next."""
    total = max(1, len(rows))
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("verified", "falsified", "open")}
    wrong = sum(row["label"] != row["predicted"] for row in rows)
    echo(
        f"{len(rows)} samples: {count['verified']} verified ({count['verified'] / total:.1%}), {count['falsified']} "
        f"falsified ({count['falsified'] / total:.1%}, of which {wrong} are misclassified as they are), "
        f"{count['open']} open."
    )
    better = {"interval": "deeppoly", "deeppoly": "alpha", "alpha": "branch"}.get(method)
    if count["open"] and better:
        echo(f"Verdicts are in {output}. Next: --method {better} decides more of them (-o another file).")
    elif count["open"]:
        echo(f"Verdicts are in {output}. Next: more --seconds decide more of them (-o another file).")
    else:
        echo(f"Verdicts are in {output}; all are decided. Read them with  pandas.read_parquet({quote(str(output))}).")
