"""`caveat audit --task regression`: a regression network and its data to a record and a report."""

from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from caveat.cli.prepared import prepared
from caveat.cli.terminal import echo
from caveat.errors import DataError, OptionError, known_name

if TYPE_CHECKING:
    from caveat.data import Numbers, Set, Source
    from caveat.records.regression import RegressionRecord

__all__ = ["levels_of", "real", "run", "show", "write"]


def run(options: dict[str, Any], given: set[str]) -> None:
    """Audit from the values of `caveat audit`'s options, of which `given` are not their defaults."""
    levels = levels_of(options["levels"])
    if options["outputs"] is not None:
        from caveat.scores.distribution import FORMS

        known_name("--outputs", options["outputs"], FORMS)
    found = prepared(options, given, task="regression", unused={"threshold"}, labelled=real, numeric=numeric)
    from caveat.audits import cache
    from caveat.audits.regression import audit_regression
    from caveat.cli.progress import steps
    from caveat.files import alone

    with alone(options["output"]), steps() as say, cache.undone_if_refused(options["output"]):
        record = audit_regression(
            found.network, found.test, outputs=options["outputs"], levels=levels, train=found.train, ood=found.ood,
            error=options["error"], calibration_share=found.share, seed=options["seed"], device=options["device"],
            dtype=options["dtype"], folder=options["output"], made_by=options["model"], say=say,
        )  # fmt: skip
        record = record.model_copy(update={"name": options["name"], "notes": [*found.told, *record.notes]})
        write(record, options["output"])
    show(record, options["output"])


def write(record: "RegressionRecord", folder: Path) -> None:
    """Write record and report."""
    record.save(folder / "record.json")
    record.report(folder / "report.html")


def real(found: "Set", option: str) -> "Source | Numbers":
    """Refuse a set whose labels are classes.

    Raises
    ------
    DataError
        If they have names, or there are none.
    """
    rows = numeric(found, option)
    if rows.classes is not None:
        raise DataError(
            f"{option}: the labels of {rows.name} are classes, not numbers; a classifier is "
            "audited without --task regression"
        )
    if bool((rows.labels == -1).all()):
        raise DataError(
            f"{option}: {rows.name} has no labels; name their column with +label=COLUMN (label, labels, target and y "
            "are known)"
        )
    return rows


def numeric(found: "Set", option: str) -> "Source | Numbers":
    """Refuse a set of texts.

    Raises
    ------
    DataError
        If it is one.
    """
    from caveat.data import Texts

    if isinstance(found, Texts):
        raise DataError(f"{option}: {found.name} holds texts; regression takes tables of numbers and pictures")
    return found


def levels_of(text: str | None) -> tuple[float, ...]:
    """The levels of quantiles, as they are written with commas between them.

    Raises
    ------
    OptionError
        If they are no numbers.
    """
    from caveat.scores.distribution import LEVELS

    try:
        return LEVELS if text is None else tuple(float(level) for level in text.split(","))
    except ValueError:
        raise OptionError(f"--levels: expected numbers like 0.05,0.5,0.95, got {text!r}") from None


def show(record: "RegressionRecord", folder: Path) -> None:
    """Print what matters most."""
    from caveat.report.regression import bottom_line
    from caveat.report.shown import plain_text

    echo()
    echo(plain_text(bottom_line(record)))
    for warning in record.warnings:
        echo(f"Warning: {warning}")
    for item in record.intervals:
        promised = "guaranteed" if item.promised else "as the network says"
        echo(f"  {item.name}: coverage {item.coverage.value:.1%}, mean width {item.width:.4g} ({promised})")
    for item in record.detections:
        echo(f"  {item.score} against {item.ood}: AUROC {item.auroc.value:.1%}")
    for note in record.notes:
        echo(f"Note: {note}")
    echo(f"Open {folder / 'report.html'} in a browser; all numbers are in {folder / 'record.json'}.")
    if record.operating and record.r2 > 0:
        words = ["caveat", "guard", "fit", str(folder), "-o", str(folder / "guard")]
        echo(f"Next: a guard that answers with an interval or abstains:  {join(words)}")
