"""`caveat guard fit`: from an audit to a guard, without another pass."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from caveat.cli.checks import output_folder, share
from caveat.cli.terminal import echo
from caveat.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from caveat.heads import HeadLayer
    from caveat.observations import Observations

NAME = "fit"


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
    against: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Or, without a guarantee: the threshold that best separates in-distribution inputs from this OOD set "
        "of the audit (Youden's index).",
    ),
    seed: int | None = typer.Option(
        None,
        min=0,
        max=2**63 - 1,
        help="Seed of the split into data for fitting and data for the threshold; by default the audit's, which gives "
        "the guard that its report previews.",
    ),
) -> None:
    """Fit a guard, which predicts or abstains, from the outputs that an audit has stored: no forward pass."""
    share("--keep", keep)
    share("--max-error", max_error)
    from caveat import fitted
    from caveat.audits import cache
    from caveat.errors import OptionError, known_name
    from caveat.guard import artefact, decision, threshold
    from caveat.scoring import catalog

    threshold.check(keep=keep, max_error=max_error, against=against is not None)
    output_folder(output)
    artefact.check_output(output)
    folder = cache.folder(_with_a_model(audit))
    if (task := cache.task(folder)) != "classification":
        from caveat.cli.guard import multilabel, regression

        others = {"--calibration": calibration != "temperature", "--max-error": max_error, "--against": against}
        regression.refuse(others, task=task)
        other = {"regression": regression, "multilabel": multilabel}[task]
        return other.fit(folder, output, score=score, keep=keep, seed=seed)
    held_out, train, head, about = cache.load(folder)
    probes = {}
    if score != "auto":
        signal = catalog.signal(known_name("--score", score, catalog.families()))
        if not _observed(score, held_out, head, about["probes"]):
            raise OptionError(
                f"--score: this audit has not stored what {score} needs; audit again with --score {score}, or take one "
                f"of {', '.join(about['scores'])}"
            )
        if signal in about["probes"]:
            probes[signal] = fitted.rebuild(catalog.probe_class(score), {}, about["probes"][signal])
    made = decision.fit(
        held_out,
        train,
        head,
        score=score,
        calibration=calibration,
        keep=keep,
        max_error=max_error,
        probes=probes,
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
    artefact.save(
        made,
        cache.weights(folder),
        output,
        model=str(about["model"]),
        answers=cache.answers(folder),
        **cache.forms(folder),
    )
    show(artefact.manifest(output))
    named = about["model"] or "package.module:callable"
    return echo(f"Next: caveat guard run {quote(str(output))} DATA --model {quote(named)} -o verdicts.parquet")


def _with_a_model(audit: Path) -> Path:
    """Refuse an audit of arrays: a guard holds a network."""
    if (audit / "record.json").exists() and not (audit / "observations").exists():
        raise DataError(
            f"audit: {audit} was made of arrays (--logits), which hold no network to put a guard around; audit the "
            "network itself:  caveat audit --model package.module:callable --test DATA -o FOLDER"
        )
    return audit


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
    promised = {
        "keep": f"accepts a fresh in-distribution input with probability {made.operating.level:.1%} or more",
        "max_error": f"at most {made.operating.level:.1%} of the accepted predictions are wrong (95 % confidence)",
        "against": f"none; its threshold rejects {made.operating.level:.1%} of that OOD set",
    }[made.operating.kind]
    echo(
        f"Guard: score {made.score} ({made.why}), calibration {made.calibration}. Guarantee: {promised}. "
        f"On the calibration samples that its threshold was set on, it accepts {made.operating.kept:.1%}, "
        f"of which {made.operating.error:.2%} are wrong; "
        f"threshold {made.operating.threshold:.6g}."
    )
