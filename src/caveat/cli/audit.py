"""`caveat audit`: a model and its data to a record and a report."""

from functools import partial
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING

import typer

from caveat.cli import under_attack
from caveat.cli.checks import clash, existing, given, output_file, output_folder, share
from caveat.cli.options import (
    DEVICE,
    DTYPE,
    ERROR,
    LEVELS,
    NORMALIZE,
    OUTPUTS,
    TASKS,
    THRESHOLD,
    TRANSFORM,
    WEIGHTS_KEY,
    WORKERS,
    asked,
)
from caveat.cli.terminal import echo, table
from caveat.errors import OptionError, known_name

if TYPE_CHECKING:
    from torch import nn

    from caveat.data import Bound, Set
    from caveat.records.record import Record

NAME = "audit"
DATA = "mnist, cifar10:test+grey+28x28, folder:path, csv:path, parquet:path, npz:path, hf:org/name:split, ..."
OF_ARRAYS = {
    "logits",
    "output",
    "score",
    "calibration",
    "calibration_share",
    "replicas",
    "seed",
    "name",
    "fail_if",
    "junit",
}
"""Options that have an effect on an audit of arrays (`--logits`)."""
UNUSED_HEAD = "--head has no effect: none of the scores needs features or the weights of the last layer."
OWN = ("report.html", "record.json")


def run(
    model: str | None = typer.Option(
        None,
        help="The network: package.module:callable (returns an nn.Module), or "
        "hf:name for a classifier of images or texts of transformers, or timm:name.",
    ),
    test: str | None = typer.Option(
        None, metavar="DATA", help=f"Labelled in-distribution (ID) data the model was not trained on: {DATA}"
    ),
    output: Path = typer.Option(
        ..., "-o", "--output", help="Folder for report.html, record.json and the model's outputs (observations)."
    ),
    weights: Path | None = typer.Option(
        None, help="Weights of the model: safetensors, or a file of torch.save (.pth, .pt, .ckpt, .bin, ...)."
    ),
    weights_key: str | None = WEIGHTS_KEY,
    normalize: str | None = NORMALIZE,
    posterior: Path | None = typer.Option(
        None,
        help="Ensemble or other posterior over the weights (written by caveat train --members or --track): audit its "
        "mean prediction, and split the uncertainty into aleatoric and epistemic.",
    ),
    dropout: bool = typer.Option(
        False, "--dropout", help="The same with MC dropout: the dropout of the model stays on."
    ),
    draws: int | None = typer.Option(
        None, min=1, help="Number of posterior samples (20 by default), or of the ensemble's members used (all)."
    ),
    logits: Path | None = typer.Option(
        None,
        help="Instead of a model and data: an npz file of its outputs on ID data, arrays logits and labels, perhaps "
        "features (penultimate activations); and NAME/logits for every OOD set.",
    ),
    train: str | None = typer.Option(
        None, metavar="DATA", help="Training data, to fit the OOD scores on; without it, the calibration split serves."
    ),
    ood: list[str] = typer.Option(
        [], metavar="NAME=DATA", help="Out-of-distribution (OOD) data: inputs of no class of the model. Repeatable."
    ),
    unlabelled: list[str] = typer.Option(
        [], metavar="NAME=DATA", help="ID data without labels: the accuracy on them is estimated. Repeatable."
    ),
    outliers: str | None = typer.Option(
        None,
        metavar="DATA",
        help="Auxiliary OOD data that the meta classifiers are trained on (never those of --ood); by default 200 "
        "inputs of uniform noise.",
    ),
    score: list[str] = typer.Option(
        [],
        help="Only this score (caveat list scores); repeatable. By default all that need one forward pass; "
        "'all' adds those from gradients, hidden layers and perturbed inputs.",
    ),
    calibration: list[str] = typer.Option(
        [], help="Only this calibration method (caveat list calibrations); repeatable. By default all."
    ),
    classes: str | None = typer.Option(
        None,
        metavar="A,B,..",
        help="Names or numbers of the model's outputs that are the classes of the data, where it has more; all by "
        "default.",
    ),
    head: str | None = typer.Option(
        None, help="Name of the last linear layer, which gives the logits; detected by default."
    ),
    features: str | None = typer.Option(
        None, help="Name of a layer whose input serves as features, for models without a linear last layer."
    ),
    attack_radius: list[float] = typer.Option(
        [],
        help="Attack ID inputs (in [0, 1]) with PGD within this radius, and report the accuracy under attack. "
        "Repeatable.",
    ),
    attack_norm: str = typer.Option("inf", help="Norm of the radius: 1, 2 or inf."),
    attack_samples: int = typer.Option(200, min=1, help="Number of ID inputs that are attacked."),
    attack_certify: str | None = typer.Option(
        None,
        help="interval or deeppoly: also certify within each radius which answers no change alters, and how well OOD "
        "inputs stay detected.",
    ),
    attack_smallest: int = typer.Option(
        24,
        min=0,
        help="Of --attack-radius: number of inputs, rightly predicted, whose smallest adversarial perturbation is "
        "looked for (FMN) and shown.",
    ),
    attack_transform: list[str] = typer.Option(
        [],
        metavar="NAME=RANGE",
        help="Accuracy of at most 30 pictures under transformations, attacked by grid and random search and certified "
        f"(DeepG): {TRANSFORM}",
    ),
    calibration_share: float = typer.Option(
        0.2,
        callback=asked,
        help="Share of the test set that is the calibration split; everything is evaluated on the rest. Without the "
        "option 0.5 for regression and multilabel.",
    ),
    replicas: int = typer.Option(200, min=1, help="Simulated data sets behind the confidence interval of the ECE."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="Seed of every random choice."),
    batch: int = typer.Option(256, min=1, help="Batch size of the forward passes."),
    device: str = DEVICE,
    dtype: str = DTYPE,
    workers: int = WORKERS,
    name: str = typer.Option("", help="Title of the report; by default the class of the model."),
    task: str = typer.Option(
        "classification",
        help="classification; regression: labels are real numbers (a table, usually); or multilabel: of several labels "
        "each input has some (+label=A,B,C).",
    ),
    outputs: str | None = OUTPUTS,
    levels: str | None = LEVELS,
    error: float = ERROR,
    threshold: float = THRESHOLD,
    fail_if: list[str] = typer.Option(
        [],
        metavar="CONDITION",
        help="Exit with code 1 if it holds, as a gate for a build: 'ece>0.05', 'auroc\\[near]<85%', "
        "'accepted\\[near]>0.3'; metrics: caveat list metrics. Repeatable.",
    ),
    junit: Path | None = typer.Option(None, help="Write the outcome of --fail-if as JUnit XML."),
) -> None:
    """Audit a network: accuracy, calibration, misclassification and OOD detection, in one report.

    Writes report.html and record.json. DATA is a name of  caveat list data  with any number of modifiers: +grey +rgb
    +28x28 +invert +only=7 +without=9 +first=1000 +sample=1000, of tables +label=COLUMN (of multilabel +label=A,B,C)
    +columns=A,B.
    """
    values = dict(locals())
    own = given(run, values)
    output_folder(output, OWN)
    share("--error", error)
    share("--calibration-share", calibration_share)
    if known_name("--task", task, TASKS) != "classification":
        from caveat.cli import audit_multilabel, audit_regression

        return {"regression": audit_regression, "multilabel": audit_multilabel}[task].run(values, own)
    clash(
        "--task classification", own & {"outputs", "levels", "error", "threshold"}, "these options are for other tasks"
    )
    _check_gate(fail_if, junit)
    if logits is not None:
        existing("--logits", logits)
        clash("--logits", own - OF_ARRAYS, "an npz file of outputs needs no model and no other data")
        return _of_arrays(logits, output, score, calibration, calibration_share, replicas, seed, name, fail_if, junit)
    if model is None or test is None:
        raise OptionError("--model, --test: both are needed (or --logits, an npz file of its outputs)")
    change = under_attack.check(own, values, several=posterior is not None or dropout)
    _check_names(fail_if, ood, unlabelled, score, calibration, several=posterior is not None or dropout)
    existing("--weights", weights)
    existing("--posterior", posterior)
    from caveat import devices
    from caveat.audits import cache
    from caveat.audits.audit import audit
    from caveat.cli import model as models
    from caveat.cli.progress import steps
    from caveat.files import alone

    devices.check(device, dtype)
    opened = _sets(test, train, ood, unlabelled, batch, seed, outliers=outliers, workers=workers)
    told: list[str] = []
    bare = models.load(model, weights, key=weights_key, normalize=normalize, say=told.append)
    known, others = _bound(*opened, bare)
    training = others["train"].get("train")
    network = models.posterior(bare, posterior, dropout=dropout, draws=draws, seed=seed, training=training)
    if dropout:
        network(next(iter(known))[0][:2])  # a network without dropout is refused before any work
    with alone(output), steps() as say, cache.undone_if_refused(output):
        record = audit(
            network, known, train=training, ood=others["ood"], unlabelled=others["unlabelled"],
            outliers=others["outliers"].get("outliers"), scores=score or None, calibrations=calibration or None,
            classes=None if classes is None else [one.strip() for one in classes.split(",")], head=head,
            features=features, attack_radii=attack_radius, attack_norm=float(attack_norm),
            attack_samples=attack_samples, attack_certify=attack_certify, attack_smallest=attack_smallest,
            attack_transform=change, calibration_share=calibration_share, replicas=replicas, seed=seed,
            folder=output, made_by=model, say=say, device=device, dtype=dtype,
        )  # fmt: skip
        notes = [*told, *record.notes, *([UNUSED_HEAD] if head is not None and not record.head else [])]
        say("writing the report")
        record = _written(record.model_copy(update={"name": name, "notes": notes}), output, fail_if, junit)
    return _ended(record, output)


def _of_arrays(
    logits: Path,
    output: Path,
    score: list[str],
    calibration: list[str],
    calibration_share: float,
    replicas: int,
    seed: int,
    name: str,
    fail_if: list[str],
    junit: Path | None,
) -> None:
    from caveat import calibration as calibrations
    from caveat.audits import arrays
    from caveat.audits.audit import audit_arrays
    from caveat.cli.progress import steps
    from caveat.records import gate

    gate.validate(fail_if, ood=arrays.ood_names(logits), calibrations=calibration or [*calibrations.FROM_LOGITS])
    with steps() as say:
        record = audit_arrays(
            logits,
            scores=score or None,
            calibrations=calibration or None,
            calibration_share=calibration_share,
            replicas=replicas,
            seed=seed,
            say=say,
        )
        gate.check(record, fail_if)  # made again in a second: one that is refused leaves nothing behind
        say("writing the report")
        record = _written(record.model_copy(update={"name": name}), output, fail_if, junit)
    _ended(record, output)


def _ended(record: "Record", output: Path) -> None:
    show(record, output)
    if any(check.failed for check in record.checks):
        raise typer.Exit(1)


def _check_gate(fail_if: list[str], junit: Path | None) -> None:
    """A typo in a condition must not cost an audit."""
    from caveat.records import gate

    gate.parse(fail_if)
    if junit is not None:
        output_file("--junit", junit, (".xml",))
        if not fail_if:
            raise OptionError("--junit: expected --fail-if beside it; without a condition there is no outcome to write")


def _check_names(
    fail_if: list[str],
    ood: list[str],
    unlabelled: list[str],
    score: list[str],
    calibration: list[str],
    *,
    several: bool,
) -> None:
    """Names of sets, scores and calibrations, also those in conditions: whatever can be known before a network runs."""
    from caveat import calibration as calibrations
    from caveat.errors import known_name
    from caveat.records import gate
    from caveat.scoring import catalog

    names = {
        option: [named(text, option)[0] for text in texts]
        for option, texts in (("--ood", ood), ("--unlabelled", unlabelled))
    }
    for one in calibration:
        known_name("--calibration", one, calibrations.FROM_LOGITS)
    scores = catalog.resolve(score or None, draws=several)
    for condition in gate.parse(fail_if):
        if not ood and gate.METRICS[condition.metric].inside == "ood,score":
            raise OptionError(
                f"--fail-if: {condition.text!r} is about an OOD set, but there is none; give it with --ood "
                f"{condition.inside.partition(',')[0] or 'NAME'}=DATA"
            )
        if gate.METRICS[condition.metric].inside == "conformal":
            known_name(f"--fail-if: {condition.metric}[kind]", condition.inside, calibrations.CONFORMAL)
    gate.validate(
        fail_if,
        ood=names["--ood"],
        unlabelled=names["--unlabelled"],
        scores=scores,
        calibrations=calibration or [*calibrations.FROM_LOGITS],
    )


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
    workers: int = 0,
) -> tuple["Set", dict[str, dict[str, "Set"]]]:
    """The in-distribution set, and the others by the name of `audit`'s parameter."""
    from caveat import data

    read = partial(data.read, batch=batch, seed=seed, workers=workers)
    known = read(test)
    given_sets = {
        option: {name: read(spec, like=known) for name, spec in map(named, given)}
        for option, given in (("ood", ood), ("unlabelled", unlabelled))
    }
    if len(given_sets["ood"]) + len(given_sets["unlabelled"]) < len(ood) + len(unlabelled):
        raise OptionError("--ood, --unlabelled: expected every name once")
    given_sets["outliers"] = {} if outliers is None else {"outliers": read(outliers, like=known)}
    return known, {"train": {} if train is None else {"train": read(train)}, **given_sets}


def _bound(
    known: "Set", others: dict[str, dict[str, "Set"]], network: "nn.Module"
) -> tuple["Bound", dict[str, dict[str, "Bound"]]]:
    """The same sets, texts as the network encodes them."""
    from caveat.data import bound

    return bound(known, network), {
        role: {name: bound(one, network) for name, one in sets.items()} for role, sets in others.items()
    }


def named(text: str, option: str = "--ood") -> tuple[str, str]:
    """Name and source of `NAME=DATA`."""
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise OptionError(f"{option}: expected NAME=DATA, got {text!r}")
    return name, source


def write(record: "Record", folder: Path) -> None:
    """Write record and report; each appears only when it is whole."""
    from caveat.report.page import write as write_page

    record.save(folder / "record.json")
    write_page(record, folder / "report.html")


def show(record: "Record", folder: Path) -> None:
    """Print what matters most, and what to do next."""
    from caveat.records.record import lowest_nll
    from caveat.report import robustness

    plain = record.calibrations[0].summary
    best = lowest_nll(record.calibrations) or record.calibrations[0]
    echo()
    echo(
        (record.model, "bold"),
        f" on {record.sets[0].source}: accuracy "
        f"{plain.accuracy.value:.1%} ({_ends(plain.accuracy.low, plain.accuracy.high)}), "
        f"mean confidence {plain.mean_confidence:.1%}, "
        f"ECE {plain.ece.value:.4f}, NLL {plain.nll.value:.4f}; lowest NLL {best.summary.nll.value:.4f} with "
        f"{'no' if best.name == 'none' else best.name} calibration (ECE {best.summary.ece.value:.4f})",
    )
    ood = [s.name for s in record.sets if s.role == "ood"]
    found = {(d.score, d.ood): d for d in record.detections}
    errors = {s.score: s for s in record.selective}
    table(
        "AUROC of each score, in %",
        ["score", "misclassified", *ood],
        [
            [
                score.name,
                f"{100 * errors[score.name].auroc.value:.1f}" if score.name in errors else "-",
                *(f"{100 * found[score.name, name].auroc.value:.1f}" for name in ood),
            ]
            for score in record.scores
        ],
        caption="misclassified: wrong against right predictions on ID data; 50 is chance, 100 perfect",
        numbers=True,
    )
    for item in record.sets:
        if item.role == "unlabelled" and item.estimated_accuracy is not None:
            echo(f"Estimated accuracy on {item.name} (unlabelled): {item.estimated_accuracy:.1%}")
    for sentence in robustness.sentences(record):
        echo(sentence)
    if "device" in record.settings:
        echo(f"The network ran on {record.settings['device']}, in {record.settings['dtype']}.")
    for warning in record.warnings:
        echo(("warning", "red"), f" {warning}")
    for note in record.notes:
        echo(("note", "yellow"), f" {note}")
    for check in record.checks:
        word = ("FAIL", "red") if check.failed else ("ok", "green")
        echo(word, f"  {check.condition}: {check.value:.6g}")
    if record.choice is not None:
        echo("Score chosen without OOD data: ", (record.choice.score, "bold"), ".")
    echo(f"Open {folder / 'report.html'} in a browser; all numbers are in {folder / 'record.json'}.")
    if (folder / "observations").exists() and not record.operating:
        echo("Next: a guard, for which the test set is too small: give more of it, or a larger --calibration-share.")
    elif (folder / "observations").exists():
        words = ["caveat", "guard", "fit", str(folder), "-o", str(folder / "guard")]
        echo(f"Next: a guard that predicts or abstains:  {join(words)}")


def _ends(low: float | None, high: float | None) -> str:
    return "too few for an interval" if low is None or high is None else f"{low:.1%} to {high:.1%}"
