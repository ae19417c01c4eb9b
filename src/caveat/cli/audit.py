"""`caveat audit`: a model and its data to a record and a report."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caveat.errors import OptionError, check_suffix

if TYPE_CHECKING:
    from caveat.data.source import Source
    from caveat.records.record import Record

NAME = "audit"
DATA = "mnist, cifar10:test+grey+28x28, folder:path, parquet:path, npz:path, hf:org/name:split, noise:uniform, ..."


def run(
    model: str | None = typer.Option(
        None, help="package.module:callable (returns an nn.Module), or hf:name for an image classifier of transformers."
    ),
    test: str | None = typer.Option(None, help=f"In-distribution data the model was not trained on: {DATA}"),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for report, record and observations."),
    weights: Path | None = typer.Option(None, help="Weights of the model, as safetensors."),
    posterior: Path | None = typer.Option(
        None, help="Posterior over the model's weights (caveat train --track, --members): audit many networks."
    ),
    dropout: bool = typer.Option(False, help="Audit many networks: the model's own dropout stays on."),
    draws: int | None = typer.Option(None, help="How many networks; 20 by default, an ensemble's members."),
    logits: Path | None = typer.Option(
        None, help="Instead of a model and data: an npz of logits, labels, perhaps features; NAME/logits of OOD inputs."
    ),
    train: str | None = typer.Option(None, help="Training data, to fit the scores on."),
    ood: list[str] = typer.Option([], metavar="NAME=SOURCE", help="Inputs of no class; give it any number of times."),
    unlabelled: list[str] = typer.Option(
        [],
        metavar="NAME=SOURCE",
        help="Inputs of the in-distribution kind without labels: their accuracy is estimated.",
    ),
    outliers: str | None = typer.Option(
        None, help="Auxiliary OOD inputs, for the meta classifiers; by default 200 of uniform noise."
    ),
    score: list[str] = typer.Option(
        [], help="Only this score; any number of times. By default all that share one pass; all: really all."
    ),
    calibration: list[str] = typer.Option([], help="Only this calibration; likewise."),
    head: str | None = typer.Option(None, help="Layer that produces the logits; found by itself by default."),
    attack_radius: list[float] = typer.Option(
        [],
        help="Attack in-distribution inputs (in [0, 1]) within this radius and report the accuracy left; repeatable.",
    ),
    attack_norm: str = typer.Option("inf", help="Norm of the radius: 1, 2 or inf."),
    attack_samples: int = typer.Option(200, help="In-distribution inputs that are attacked."),
    calibration_share: float = typer.Option(0.2, help="Share of the test set that is set aside to fit calibrations."),
    replicas: int = typer.Option(200, help="Bootstrap replicas behind every interval."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    batch: int = typer.Option(256, help="Inputs per forward pass."),
    name: str = typer.Option("", help="Title of the report; by default the class of the model."),
    fail_if: list[str] = typer.Option(
        [],
        metavar="CONDITION",
        help="Exit with 1 if it holds: 'ece>0.05', 'auroc\\[near]<85%', 'accepted\\[near]>0.3'; caveat list metrics.",
    ),
    junit: Path | None = typer.Option(None, help="Write the outcome of --fail-if as JUnit XML."),
) -> None:
    """Audit a network: may its answers be trusted, and which? Writes report.html and record.json.

    Data are named as in  caveat list data , with modifiers: +grey +rgb +28x28 +invert +only=7 +without=9 +first=1000.
    """
    from caveat.audits.audit import audit, audit_arrays
    from caveat.cli import model as models
    from caveat.cli.progress import steps

    _check_conditions(fail_if, ood, unlabelled, arrays=logits is not None)
    if junit is not None:
        check_suffix("--junit", junit.name, (".xml",))
    norm = _norm(attack_norm)
    with steps() as say:
        if logits is not None:
            if model is not None or test is not None:
                raise OptionError("--logits: expected either --logits or --model and --test, got both")
            record = audit_arrays(
                logits,
                scores=score or None,
                calibrations=calibration or None,
                calibration_share=calibration_share,
                replicas=replicas,
                seed=seed,
                say=say,
            )
        else:
            if model is None or test is None:
                raise OptionError("--model, --test: both are needed (or --logits, an npz of what a network said)")
            known, others = _sets(test, train, ood, unlabelled, batch, seed, outliers=outliers)
            training = others["train"].get("train")
            record = audit(
                models.many(
                    models.load(model, weights),
                    posterior=posterior,
                    dropout=dropout,
                    draws=draws,
                    seed=seed,
                    training=training,
                ),
                known,
                train=training,
                ood=others["ood"],
                unlabelled=others["unlabelled"],
                outliers=others["outliers"].get("outliers"),
                scores=score or None,
                calibrations=calibration or None,
                head=head,
                attack_radii=attack_radius,
                attack_norm=norm,
                attack_samples=attack_samples,
                calibration_share=calibration_share,
                replicas=replicas,
                seed=seed,
                folder=output,
                made_by=model,
                say=say,
            )
        say("writing the report")
        record = _written(record.model_copy(update={"name": name}), output, fail_if, junit)
    show(record, output)
    if any(check.failed for check in record.checks):
        raise typer.Exit(1)


def _check_conditions(fail_if: list[str], ood: list[str], unlabelled: list[str], *, arrays: bool) -> None:
    """Whatever can be checked before a network runs is checked then: a typo must not cost an audit."""
    from caveat.records import gate

    names = {
        option: [named(text, option)[0] for text in given]
        for option, given in (("--ood", ood), ("--unlabelled", unlabelled))
    }
    if arrays:
        gate.parse(fail_if)
    else:
        gate.validate(fail_if, ood=names["--ood"], unlabelled=names["--unlabelled"])


def _written(record: "Record", output: Path, fail_if: list[str], junit: Path | None) -> "Record":
    """Write the record, then judge it: a condition on what it lacks must not cost the record."""
    from caveat.files import write_atomically
    from caveat.records import gate

    write(record, output)
    if fail_if:
        record = record.model_copy(update={"checks": gate.check(record, fail_if)})
        write(record, output)
    if junit is not None:
        write_atomically(junit, gate.junit(record.checks))
    return record


def _sets(
    test: str,
    train: str | None,
    ood: list[str],
    unlabelled: list[str],
    batch: int,
    seed: int,
    *,
    outliers: str | None = None,
) -> tuple["Source", dict[str, dict[str, "Source"]]]:
    """The in-distribution set, and the others by the name of `audit`'s parameter."""
    from caveat import data

    known = data.load(test, batch=batch, seed=seed)
    given_sets = {
        option: {name: data.load(spec, batch=batch, seed=seed, like=known) for name, spec in map(named, given)}
        for option, given in (("ood", ood), ("unlabelled", unlabelled))
    }
    if len(given_sets["ood"]) + len(given_sets["unlabelled"]) < len(ood) + len(unlabelled):
        raise OptionError("--ood, --unlabelled: expected every name once")
    given_sets["outliers"] = (
        {} if outliers is None else {"outliers": data.load(outliers, batch=batch, seed=seed, like=known)}
    )
    return known, {"train": {} if train is None else {"train": data.load(train, batch=batch, seed=seed)}, **given_sets}


def _norm(text: str) -> float:
    if text not in ("1", "2", "inf"):
        raise OptionError(f"--attack-norm: expected 1, 2 or inf, got {text!r}")
    return float(text)


def named(text: str, option: str = "--ood") -> tuple[str, str]:
    """Name and source of `NAME=SOURCE`."""
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise OptionError(f"{option}: expected NAME=SOURCE, got {text!r}")
    return name, source


def write(record: "Record", folder: Path) -> None:
    """Write record and report; each appears only when it is whole."""
    from caveat.report.page import write as write_page

    record.save(folder / "record.json")
    write_page(record, folder / "report.html")


def show(record: "Record", folder: Path) -> None:
    """Print what matters most, and what to do next."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    plain = record.calibrations[0].summary
    best = min(record.calibrations, key=lambda c: c.summary.nll.value)
    console.print(
        f"\n[bold]{escape(record.model)}[/bold] on {escape(record.sets[0].source)}: accuracy "
        f"{plain.accuracy.value:.1%} ({plain.accuracy.low:.1%} to {plain.accuracy.high:.1%}), "
        f"mean confidence {plain.mean_confidence:.1%}, "
        f"ECE {plain.ece.value:.4f}, NLL {plain.nll.value:.4f}; best NLL {best.summary.nll.value:.4f} with "
        f"{'no' if best.name == 'none' else best.name} calibration (ECE {best.summary.ece.value:.4f})"
    )
    ood = [s.name for s in record.sets if s.role == "ood"]
    table = Table(title="AUROC of each score, in %", caption="50 is chance, 100 perfect; intervals are in the report")
    table.add_column("score", no_wrap=True)
    table.add_column("own errors", justify="right")
    for name in ood:
        table.add_column(name, justify="right", overflow="fold")
    found = {(d.score, d.ood): d for d in record.detections}
    errors = {s.score: s for s in record.selective}
    for score in record.scores:
        wrong = f"{100 * errors[score.name].auroc.value:.1f}" if score.name in errors else "-"
        cells = [found[score.name, name] for name in ood]
        table.add_row(score.name, wrong, *(f"{100 * d.auroc.value:.1f}" for d in cells))
    console.print(table)
    for note in record.notes:
        console.print(f"[yellow]note[/yellow] {escape(note)}")
    for check in record.checks:
        colour, word = ("red", "FAIL") if check.failed else ("green", "ok")
        console.print(f"[{colour}]{word}[/]  {escape(check.condition)}: {check.value:.6g}")
    if record.choice is not None:
        console.print(f"Score by in-distribution data alone: [bold]{record.choice.score}[/bold].")
    console.print(
        f"Open [bold]{folder / 'report.html'}[/bold] in a browser; all numbers are in {folder / 'record.json'}."
    )
    if (folder / "observations").exists():
        console.print(f"Next: a guard that answers or abstains:  caveat guard fit {folder} -o {folder / 'guard'}")
