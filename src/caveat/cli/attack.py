"""`caveat attack`: for every sample of a set whether an input near it with another answer is found, as Parquet."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import typer

from caveat.cli import labelled
from caveat.cli.checks import existing, output_file, positive
from caveat.cli.options import NORMALIZE, WEIGHTS_KEY
from caveat.cli.terminal import echo
from caveat.cli.verdicts import OFTEN, begun, warned, write
from caveat.errors import OptionError, known_name

NAME = "attack"
NORMS = {"1": 1, "2": 2, "inf": math.inf}
NORMS_OF = {"carlini": ("2",), "deepfool": ("2", "inf")}
"""Of attacks that do not know every norm."""


def run(
    model: str = typer.Option(..., help="package.module:callable (returns an nn.Module from inputs to logits)."),
    test: str = typer.Option(..., metavar="DATA", help="Labelled data, for instance mnist:test or folder:val/."),
    radius: float | None = typer.Option(
        None, help="Radius of the ball around every input, in the units of the data; not of fmn, deepfool and carlini."
    ),
    output: Path = typer.Option(
        Path("attacked.parquet"),
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
    attack: str = typer.Option(
        "strongest",
        help="strongest (APGD, targeted APGD, FMN and Square in turn), apgd, pgd, square, ...; without a radius fmn, "
        "deepfool or carlini: how near is the nearest input with another answer?",
    ),
    batch: int = typer.Option(50, min=1, help="Samples that are attacked at once."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of the attack."),
) -> None:
    """Attack a network: for every sample misclassified, broken or standing.

    Broken: an input of the ball with another answer was found; how far it is and what found it stand beside it.
    Standing: none was found, which proves nothing (`caveat certify` does). Without a radius the distances are the
    result: upper bounds of the smallest. Stopped and started again with the same
    options, it goes on where it was.
    """
    known_name("--norm", norm, NORMS)
    _fits(attack, norm, radius)
    output_file("-o", output, (".parquet",))
    existing("--weights", weights)
    found, network = labelled.opened(model, test, weights, weights_key, normalize, batch=batch, seed=seed)
    from caveat.tensors import digest as digest_of
    from caveat.training.run_folder import digest

    settings = {
        "command": NAME, "model": model, "weights": digest_of(network.state_dict(), {}),
        "normalize": normalize, "test": digest(found),
        "norm": norm, "radius": radius, "attack": attack, "batch": batch, "seed": seed,
    }  # fmt: skip
    done = _Done(output, settings, begun(output, settings, command=NAME), warned(output))
    if done.rows:
        echo(f"{output} holds {len(done.rows)} of {len(found)} verdicts of the same run: it goes on from there.")
    _attacked(network, found, done)
    _told(done)


def _fits(attack: str, norm: str, radius: float | None) -> None:
    """Refuse what does not go together: a radius is of attacks in a ball, and not every attack knows every norm."""
    from caveat import attacks

    known_name("--attack", attack, ["strongest", *attacks.IN_BALL, *attacks.QUERY, *attacks.MINIMAL])
    nearest = attack in attacks.MINIMAL
    if (radius is None) != nearest:
        raise OptionError(
            f"--radius: --attack {attack} looks for the nearest input with another answer, at any distance; leave the "
            "radius out" if nearest else
            f"--radius: --attack {attack} needs one, for instance --radius 0.1; {', '.join(attacks.MINIMAL)} do without"
        )  # fmt: skip
    positive("--radius", [] if radius is None else [radius])
    norms = NORMS_OF.get(attack, NORMS)
    if norm not in norms:
        raise OptionError(f"--norm: --attack {attack} is of norm {' or '.join(norms)}, got {norm}; --attack fmn is of "
                          "all")  # fmt: skip


@dataclass
class _Done:
    """The rows so far, and where they are written."""

    output: Path
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list[str])

    def write(self) -> None:
        import pyarrow as pa

        kinds = {
            "index": pa.int64(), "file": pa.string(), "label": pa.int64(), "predicted": pa.int64(),
            "attacked": pa.int64(), "verdict": pa.string(), "by": pa.string(), "distance": pa.float64(),
            "seconds": pa.float64(),
        }  # fmt: skip
        write(self.rows, self.output, self.settings | {"notes": self.notes}, kinds)


def _attacked(network: Any, found: Any, done: _Done) -> None:
    """Add a row for every sample that has none, and write them now and then."""
    import torch
    from rich.progress import track

    from caveat.attacks import Ball
    from caveat.cli.terminal import console

    ball = Ball(NORMS[done.settings["norm"]], done.settings["radius"] or 0.0)
    left = torch.arange(len(done.rows), len(found))
    shown, written = console(stderr=True), time.perf_counter()
    parts = left.split(done.settings["batch"]) if len(left) else ()
    for part in track(parts, "attacking", console=shown, transient=True, disable=not shown.is_terminal):
        inputs, labels = labelled.part(found, network, part)
        started = time.perf_counter()
        # a seed for each part, which begins where it would have begun without a stop
        generator = torch.Generator().manual_seed((done.settings["seed"] + int(part[0])) % 2**63)
        reached, by = _reached(network, inputs, labels, ball, generator, done)
        with torch.no_grad():
            before, after = (network(x.clone()).argmax(1) for x in (inputs, reached))
        far, spent = ball.distance(reached, inputs), (time.perf_counter() - started) / len(part)
        for k, position in enumerate(part.tolist()):
            wrong, broken = bool(before[k] != labels[k]), bool(after[k] != labels[k])
            done.rows.append({
                "index": position, "file": None if found.place is str else found.place(position),
                "label": int(labels[k]), "predicted": int(before[k]), "attacked": int(after[k]),
                "verdict": "misclassified" if wrong else "broken" if broken else "standing",
                "by": by[k] if broken and not wrong else None,
                "distance": 0.0 if wrong else float(far[k]) if broken else None, "seconds": spent,
            })  # fmt: skip
        if time.perf_counter() - written > OFTEN:
            done.write()
            written = time.perf_counter()
    done.write()


def _reached(network: Any, inputs: Any, labels: Any, ball: Any, generator: Any, done: _Done) -> tuple[Any, list[str]]:
    """The attacked inputs, and what broke each."""
    from caveat import attacks

    name = done.settings["attack"]
    if name == "strongest":
        found = attacks.strongest(network, inputs, labels, ball, generator=generator)
        done.notes += [note for note in found.notes if note not in done.notes]
        return found.inputs, list(found.by)
    blind = attacks.masked(network, inputs, labels)
    done.notes += [note for note in attacks.warnings_of(network, inputs, blind) if note not in done.notes]
    if name in attacks.MINIMAL:
        own = {} if name == "carlini" else {"norm": ball.norm}
        found = attacks.MINIMAL[name](network, inputs, labels, low=ball.low, high=ball.high, **own)
        return found.inputs, [name] * len(inputs)
    attack = (attacks.IN_BALL | attacks.QUERY)[name]
    if name in attacks.IN_BALL and bool(blind.all()):
        name, attack = "without_gradient", attacks.without_gradient
    return attack(network, inputs, labels, ball, generator=generator), [name] * len(inputs)


def _told(done: _Done) -> None:
    """One line of results, the warnings, and what to do next."""
    from caveat.metrics.interval import interval_of_share

    count = {kind: sum(row["verdict"] == kind for row in done.rows) for kind in ("misclassified", "broken", "standing")}
    if not done.rows:
        raise OptionError("--test: it holds no samples; nothing was attacked")
    told = (
        f"{len(done.rows)} samples: {count['misclassified']} misclassified, {count['broken']} broken, "
        f"{count['standing']} standing. "
    )
    if done.settings["radius"] is None:
        distances = [row["distance"] for row in done.rows if row["verdict"] == "broken"]
        far = f"Median distance of the broken {median(distances):.3g} in" if distances else "Distances are in"
        echo(f"{told}{far} norm {done.settings['norm']}, an upper bound: another attack may come nearer.")
    else:
        share = interval_of_share(count["standing"], len(done.rows))
        echo(
            f"{told}Accuracy under attack {share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%}), an "
            "upper bound: another attack may break more."
        )
    for note in done.notes:
        echo(f"Warning: {note}")
    echo(f"Verdicts are in {done.output}. Read them with  pyarrow.parquet.read_table({str(done.output)!r}).")
