"""`caveat guard fit`: from an audit to a guard, without another pass."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, cast

import typer

from caveat.cli.checks import output_folder, share
from caveat.cli.terminal import echo
from caveat.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from caveat.guard.decision import Decision
    from caveat.guard.examples import Examples
    from caveat.heads import HeadLayer
    from caveat.observations import Observations

NAME = "fit"
BETTER = 0.98
"""A calibration is advised whose NLL is at most this part of the one used."""


def run(
    audit: Path = typer.Argument(..., help="Folder of an audit; the model's outputs stored there are used again."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for the guard."),
    score: str = typer.Option(
        "auto", help="The score (caveat list scores), or auto: chosen on in-distribution data alone, without OOD data."
    ),
    calibration: str = typer.Option(
        "temperature", help="The calibration of its probabilities (caveat list calibrations), or none."
    ),
    keep: float | None = typer.Option(
        None,
        help="Guarantee: this share of new in-distribution inputs is accepted at least (true positive rate); "
        "0.95 by default.",
    ),
    max_error: float | None = typer.Option(
        None,
        help="Or another guarantee: this share of the accepted predictions is wrong at most (selective risk), with "
        "95 % confidence.",
    ),
    each_class: bool = typer.Option(
        False,
        "--each-class",
        help="--keep is guaranteed for the inputs of every class; classes with too few samples are named.",
    ),
    against: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Or, without a guarantee: the threshold that best separates in-distribution inputs from this OOD set "
        "of the audit (Youden's index).",
    ),
    ood_share: float | None = typer.Option(
        None,
        help="--max-error is guaranteed for mixtures too with at most this share of OOD inputs, if those are like the "
        "set of --against. Without it nothing is guaranteed where OOD inputs come.",
    ),
    seed: int | None = typer.Option(
        None,
        min=0,
        max=2**63 - 1,
        help="Seed of the split into data for fitting and data for the threshold; by default the audit's, which gives "
        "the guard that its report previews.",
    ),
    examples: int = typer.Option(
        0,
        min=0,
        help="Keep so many pictures of the audit's test set in the guard, small, to show those that are nearest to an "
        "input; whoever has the guard can see them.",
    ),
) -> None:
    """Fit a guard, which predicts or abstains, from the outputs that an audit has stored: no forward pass."""
    share("--keep", keep)
    share("--max-error", max_error)
    share("--ood-share", ood_share)
    from caveat.audits import cache
    from caveat.guard import artefact, decision, stored, threshold

    threshold.check(
        keep=keep, max_error=max_error, against=against is not None, each_class=each_class, ood_share=ood_share
    )
    output_folder(output)
    artefact.check_output(output)
    replaced = (output / stored.MANIFEST).exists()
    folder = cache.folder(_with_a_model(audit))
    if (task := cache.task(folder)) != "classification":
        from caveat.cli.guard import multilabel, regression

        others = {
            "--calibration": calibration != "temperature", "--max-error": max_error, "--against": against,
            "--each-class": each_class, "--examples": examples,
        }  # fmt: skip
        regression.refuse(others, task=task)
        other = {"regression": regression, "multilabel": multilabel}[task]
        other.fit(folder, output, score=score, keep=keep, seed=seed)
        return _tell(output, replaced)
    held_out, train, head, about = cache.load(folder)
    made = decision.fit(
        held_out,
        train,
        head,
        score=score,
        calibration=calibration,
        keep=keep,
        max_error=max_error,
        each_class=each_class,
        ood_share=ood_share,
        probes={} if score == "auto" else _probes(score, held_out, head, about),
        classes=tuple(about["classes"]),
        shape=tuple(about["shape"]),
        largest=about["largest"],
        seed=about["seed"] if seed is None else seed,
        outliers=cache.outliers(folder),
        against=None if against is None else cache.ood(folder, against),
        among=about["scores"],
        dtype=about["autocast"],
        columns=None if about["columns"] is None else tuple(about["columns"]),
    )
    advice = list(_advice(audit, made))  # read before anything is written: a damaged record leaves no guard behind
    artefact.save(
        made if not examples else replace(made, examples=_examples(audit, held_out, about, examples)),
        cache.weights(folder),
        output,
        model=str(about["model"]),
        answers=cache.answers(folder),
        **cache.forms(folder),
    )
    show(artefact.manifest(output))
    _tell(output, replaced, advice)
    named = quote(about["model"] or "package.module:callable")
    echo(f"Next: caveat guard run {quote(str(output))} DATA --model {named} -o verdicts.parquet")
    return None


def _advice(audit: Path, made: "Decision") -> "Iterator[str]":
    """What a user would want to choose otherwise, had he looked at the audit."""
    from caveat.guard.monitor import FEW
    from caveat.records.record import Record, lowest_nll

    if (audit / "record.json").exists():
        tried = Record.load(audit / "record.json").calibrations
        found = {one.name: one.summary.nll.value for one in tried}
        best = lowest_nll(tried)
        if best and made.calibration in found and found[best.name] < BETTER * found[made.calibration]:
            named = "no" if best.name == "none" else best.name
            yield (
                f"In the audit {named} calibration has a lower NLL ({found[best.name]:.4g}, {made.calibration} "
                f"{found[made.calibration]:.4g}): --calibration {best.name} uses it."
            )
    if len(made.reference) < FEW:
        yield f"The guard has {len(made.reference)} reference scores; a monitor needs {FEW}: fit it on more samples."


def _tell(output: Path, replaced: bool, advice: "Sequence[str]" = ()) -> None:
    if replaced:
        echo(f"The guard that was in {output} before was replaced.")
    for sentence in advice:
        echo(sentence)


def _examples(audit: Path, held_out: "Observations", about: "Mapping[str, Any]", count: int) -> "Examples":
    """Pictures of the calibration split, read again from where the audit read them."""
    import torch

    from caveat import data
    from caveat.audits import cache
    from caveat.guard import examples
    from caveat.inputs import take
    from caveat.records.record import Record

    examples.check(tuple(about["shape"]), count)
    test = next(one for one in Record.load(audit / "record.json").sets if one.role == "test")
    source = data.load(test.source, seed=about["seed"])
    places = cache.calibration_rows(test.count, about)
    prints = torch.zeros(test.count, dtype=torch.int64)
    prints[places] = cast("torch.Tensor", held_out.fingerprints)
    return examples.of(held_out, count, lambda rows: take(source, places[rows], prints, "--examples"))


def _with_a_model(audit: Path) -> Path:
    """Refuse an audit of arrays: a guard holds a network."""
    if (audit / "record.json").exists() and not (audit / "observations").exists():
        raise DataError(
            f"audit: {audit} was made of arrays (--logits), which hold no network to put a guard around; audit the "
            "network itself:  caveat audit --model package.module:callable --test DATA -o FOLDER"
        )
    return audit


def _probes(
    score: str, held_out: "Observations", head: "HeadLayer | None", about: "Mapping[str, Any]"
) -> dict[str, Any]:
    """What the audit probed for a score that is named, by signal; refused where it has not stored what that needs."""
    from caveat import fitted
    from caveat.errors import OptionError, known_name
    from caveat.scoring import catalog

    signal = catalog.signal(known_name("--score", score, catalog.families()))
    if not _observed(score, held_out, head, about["probes"]):
        raise OptionError(
            f"--score: this audit has not stored what {score} needs; audit again with --score {score}, or take one "
            f"of {', '.join(about['scores'])}"
        )
    if signal not in about["probes"]:
        return {}
    return {signal: fitted.rebuild(catalog.probe_class(score), {}, about["probes"][signal])}


def _observed(score: str, held_out: "Observations", head: "HeadLayer | None", probes: "Mapping[str, Any]") -> bool:
    """Whether an audit has what a score is computed from."""
    from caveat.observations import DRAWS
    from caveat.scoring.kinds import kind_of

    kind = kind_of(score)
    return (
        (kind.probe is None or kind.signal_of(score) in probes)
        and (not kind.needs_features or held_out.features is not None)
        and (not kind.needs_head or (head is not None and head.head is not None))
        and (not kind.from_draws or DRAWS in held_out.probed)
    )


def show(made: Any) -> None:
    """Print what a guard guarantees."""
    from caveat.guard.guarantee import guarantee

    promised = guarantee(made.operating, made.classes)
    echo(
        f"Guard: score {made.score} ({made.why}), calibration {made.calibration}. Guarantee: {promised}. "
        f"On the calibration samples that its threshold was set on, it accepts {made.operating.kept:.1%}, "
        f"of which {made.operating.error:.2%} are wrong; "
        f"threshold {made.operating.threshold:.6g}."
    )
