"""`caveat guard fit`: from an audit to a guard, without another pass."""

from pathlib import Path
from typing import Any

import typer

NAME = "fit"


def run(
    audit: Path = typer.Argument(..., help="Folder of an audit: its observations are used again."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder for the guard."),
    score: str = typer.Option("auto", help="A score, or auto: the best by what is known without OOD data."),
    calibration: str = typer.Option("temperature", help="A calibration, or none."),
    keep: float | None = typer.Option(
        None, help="Accept a fresh in-distribution input at least this often (default 0.95)."
    ),
    max_error: float | None = typer.Option(None, help="Or: at most this share of wrong answers among the accepted."),
    against: str | None = typer.Option(
        None, help="Or: the threshold that best tells in-distribution inputs from this OOD set of the audit (its NAME)."
    ),
    seed: int | None = typer.Option(
        None,
        help="Seed of the halves of the calibration split; by default the audit's: the guard is its preview.",
    ),
) -> None:
    """Fit a guard that answers or abstains, from the observations an audit has kept."""
    from caveat import fitted
    from caveat.audits import cache
    from caveat.errors import known_name
    from caveat.guard import artefact, decision, threshold
    from caveat.scoring import catalog

    threshold.check(keep=keep, max_error=max_error, against=against is not None)
    artefact.check_output(output)
    folder = cache.folder(audit)
    held_out, train, head, about = cache.load(folder)
    probes = {}
    if score != "auto":
        signal = catalog.signal(known_name("--score", score, catalog.families()))
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
        seed=about["seed"] if seed is None else seed,
        outliers=cache.outliers(folder),
        against=None if against is None else cache.ood(folder, against),
        among=about["scores"],
    )
    artefact.save(made, cache.weights(folder), output, model=str(about["model"]), posterior=about["posterior"])
    show(artefact.manifest(output))
    named = about["model"] or "package.module:callable"
    typer.echo(f"Next: caveat guard run {output} DATA --model '{named}' -o verdicts.parquet")


def show(made: Any) -> None:
    """Print what a guard promises."""
    promised = {
        "keep": f"accepts a fresh in-distribution input with probability {made.operating.level:.1%} or more",
        "max_error": f"at most {made.operating.level:.1%} of the accepted answers are wrong (95 % confidence)",
        "against": f"none; its threshold refuses {made.operating.level:.1%} of the pseudo-OOD inputs",
    }[made.operating.kind]
    typer.echo(
        f"Guard: score {made.score} ({made.why}), calibration {made.calibration}. Promise: {promised}. "
        f"On held-out in-distribution data it accepts {made.operating.kept:.1%}, "
        f"of which {made.operating.error:.2%} are wrong; "
        f"threshold {made.operating.threshold:.6g}."
    )
