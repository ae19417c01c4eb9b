"""`caveat certify`: for every sample of a set whether an input near it changes the answer, as Parquet."""

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import typer

from caveat.cli import labelled
from caveat.cli.checks import existing, output_file, output_folder, positive
from caveat.cli.options import NORMALIZE, TRANSFORM, WEIGHTS_KEY
from caveat.cli.terminal import echo
from caveat.cli.verdicts import OFTEN, begun, write
from caveat.errors import OptionError, known_name

NAME = "certify"
NORMS = {"1": 1, "2": 2, "inf": math.inf}


def run(
    model: str = typer.Option(..., help="package.module:callable (returns an nn.Module from inputs to logits)."),
    test: str = typer.Option(..., metavar="DATA", help="Labelled data, for instance mnist:test or folder:val/."),
    radius: float | None = typer.Option(None, help="Radius of the ball around every input, in the units of the data."),
    transform: list[str] = typer.Option(
        [],
        metavar="NAME=RANGE",
        help=f"In place of a ball: {TRANSFORM}",
    ),
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
        "deeppoly",
        help="interval, deeppoly, alpha (optimised slopes) or branch (branch and bound); with --transform interval, "
        "crown_ibp (for networks trained with intervals) or deeppoly.",
    ),
    cells: int | None = typer.Option(
        None, min=1, help="Of --transform: parts of the ranges that are looked at for each sample; 1000 by default."
    ),
    seconds: float | None = typer.Option(
        None,
        help="Of alpha and --transform (no limit by default) and branch (60), for each sample: what is not decided "
        "by then is open.",
    ),
    proof: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        help="Write a proof of every verified sample there, which a checker without Caveat and PyTorch accepts or not.",
    ),
    batch: int = typer.Option(50, min=1, help="Samples that are bounded at once."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of the attack."),
) -> None:
    """Certify a network against adversarial inputs or transformations: for every sample verified, falsified or open.

    Verified: no input of the ball, or no transformed picture, is answered otherwise than the label. Falsified: one is,
    and was found. Stopped and started again with the same options, it goes on where it was.
    """
    known_name("--norm", norm, NORMS)
    if (radius is None) == (not transform):
        raise OptionError("--radius: expected either it or --transform, which say what is certified; got "
                          + ("neither" if radius is None else "both"))  # fmt: skip
    positive("--radius", [] if radius is None else [radius], zero=True)
    if transform and norm != "inf":
        raise OptionError("--norm: it is of the ball of --radius; leave it out with --transform")
    output_file("-o", output, (".parquet",))
    existing("--weights", weights)
    from caveat import bounds
    from caveat.attacks import Ball
    from caveat.bounds.certify import TIMED
    from caveat.tensors import digest as digest_of
    from caveat.training.run_folder import digest

    change = transformation(transform, "--transform") if transform else None
    known_name("--method", method, bounds.GEOMETRIC if change else bounds.METHODS)
    if cells is not None and change is None:
        raise OptionError("--cells: it is the number of parts of --transform; leave it out")
    if seconds is not None and method not in TIMED and change is None:
        raise OptionError("--seconds: it is the time of --method alpha and branch, and of --transform; leave it out")
    positive("--seconds", [] if seconds is None else [seconds])
    if proof is not None and change is not None:
        raise OptionError("--proof: proofs are of balls (--radius), not of --transform; leave one of them out")
    if proof is not None and norm != "inf":
        raise OptionError("--proof: proofs are of balls of --norm inf alone; leave it out")
    if proof is not None:
        output_folder(proof, option="--proof")
    found, network = labelled.opened(model, test, weights, weights_key, normalize, batch=batch, seed=seed)
    settings = {
        "command": NAME, "model": model, "weights": digest_of(network.state_dict(), {}),
        "normalize": normalize, "test": digest(found), "norm": norm,
        "radius": radius, "method": method, "seconds": seconds, "seed": seed,
        "transform": None if change is None else repr(change), "cells": cells,
    }  # fmt: skip
    rows = begun(output, settings, command=NAME)
    if rows:
        echo(f"{output} holds {len(rows)} of {len(found)} verdicts of the same run: it goes on from there.")
    more = {"method": method, "seed": seed, "seconds": seconds}
    if change is None:
        ball = Ball(NORMS[norm], radius or 0.0)
        certify = partial(bounds.certify, ball=ball, **more)
    else:
        limit = {} if cells is None else {"cells": cells}
        certify = partial(bounds.certify_transformed, transformation=change, **limit, **more)
    proofs = None if proof is None else _proofs(proof, network, found, Ball(math.inf, radius or 0.0), settings)
    _certified(network, found, certify, rows, output, settings, one=method in TIMED,
               graph=proofs and proofs.graph)  # fmt: skip
    _told(rows, output, method, bounds.rounding(network), transformed=change is not None)
    if proofs is not None:
        _prove_left(rows, network, found, proofs)
        _proved(rows, proofs)


def _proofs(folder: Path, network: Any, found: Any, ball: Any, settings: dict[str, Any]) -> Any:
    """The folder with the network alone: what cannot be proved is refused before any sample is looked at."""
    import torch

    from caveat.bounds.proofs import Folder
    from caveat.graph import trace

    graph = trace(network, labelled.part(found, network, torch.arange(1))[0])
    settings = settings | {"proof": str(folder)}
    return Folder.begun(folder, graph, ball, method=settings["method"], seconds=settings["seconds"], settings=settings)


def _prove_left(rows: list[dict[str, Any]], network: Any, found: Any, proofs: Any) -> None:
    """Proofs of verdicts that an earlier run without them left, and of those whose file was removed."""
    import torch
    from rich.progress import track

    from caveat.cli.terminal import console

    lacking = [row for row in rows if row["verdict"] == "verified" and not proofs.file(row["index"]).exists()]
    shown = console(stderr=True)
    for row in track(lacking, "proving", console=shown, transient=True, disable=not shown.is_terminal):
        inputs, labels = labelled.part(found, network, torch.tensor([row["index"]]))
        proofs.keep(row["index"], inputs, int(labels[0]))


def _proved(rows: list[dict[str, Any]], proofs: Any) -> None:
    """How many proofs there are, and how to check them."""
    verified = [row["index"] for row in rows if row["verdict"] == "verified"]
    count = sum(proofs.file(index).exists() for index in verified)
    echo(f"{count} of the {len(verified)} verified samples have a proof in {proofs.path} (network sha256 "
         f"{proofs.net.sha256}). Next: python -m caveat.bounds.checker {proofs.path}")  # fmt: skip


def transformation(words: list[str], option: str) -> Any:
    """From NAME=RANGE to a transformation; translate is right and down at once."""
    from caveat.attacks.transformation import AXES, Transformation

    ranges = dict[str, Any]()
    for word in words:
        name, _, given = word.partition("=")
        known_name(option, name, ["translate", *AXES])
        try:
            ends = [float(end) for end in given.split(":")]
        except ValueError:
            ends = []
        if len(ends) not in (1, 2):
            raise OptionError(f"{option}: expected {name}=x or {name}=least:largest, numbers, got {word!r}")
        for each in ("right", "down") if name == "translate" else (name,):
            if each in ranges:
                raise OptionError(f"{option}: {each} is given twice; name each range once")
            ranges[each] = ends[0] if len(ends) == 1 else (ends[0], ends[1])
    return Transformation(**ranges)


def _certified(
    network: Any,
    found: Any,
    certify: Any,
    rows: list[dict[str, Any]],
    output: Path,
    settings: dict[str, Any],
    *,
    one: bool,
    graph: Any,
) -> None:
    """Add a row for every sample that has none, and write them now and then."""
    import torch
    from rich.progress import track

    from caveat import bounds
    from caveat.cli.terminal import console
    from caveat.graph import trace

    left = torch.arange(len(rows), len(found))
    shown, written = console(stderr=True), time.perf_counter()
    parts = left.split(1 if one else found.batch) if len(left) else ()
    for part in track(parts, "certifying", console=shown, transient=True, disable=not shown.is_terminal):
        inputs, labels = labelled.part(found, network, part)
        graph = graph or trace(network, inputs)
        started = time.perf_counter()
        made = certify(network, inputs, labels, graph=graph)
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


def _told(rows: list[dict[str, Any]], output: Path, method: str, note: str, *, transformed: bool) -> None:
    """One line of results, and what to do next."""
    total = max(1, len(rows))
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("verified", "falsified", "open")}
    wrong = sum(row["label"] != row["predicted"] for row in rows)
    echo(
        f"{len(rows)} samples: {count['verified']} verified ({count['verified'] / total:.1%}), {count['falsified']} "
        f"falsified ({count['falsified'] / total:.1%}, of which {wrong} are misclassified as they are), "
        f"{count['open']} open."
    )
    if count["open"] and note:
        echo(note)
    better = {"interval": "deeppoly", "crown_ibp": "deeppoly", "deeppoly": "alpha", "alpha": "branch"}.get(method)
    better, others = (None, "--cells") if transformed and method == "deeppoly" else (better, "--seconds")
    if count["open"] and better:
        echo(f"Verdicts are in {output}. Next: --method {better} decides more of them (-o another file).")
    elif count["open"]:
        echo(f"Verdicts are in {output}. Next: more {others} decide more of them (-o another file).")
    else:
        echo(f"Verdicts are in {output}; all are decided. Read them with  pyarrow.parquet.read_table({str(output)!r}).")
