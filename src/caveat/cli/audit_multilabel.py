"""`caveat audit --task multilabel`: a multi-label network and its data to a record and a report."""

from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from caveat.cli.checks import share
from caveat.cli.prepared import prepared
from caveat.cli.terminal import echo
from caveat.errors import DataError

if TYPE_CHECKING:
    from caveat.data import Numbers, Set, Source
    from caveat.records.multilabel import MultilabelRecord

__all__ = ["OWN", "run", "show"]

OWN = {"threshold"}
"""Options of `caveat audit` that are for this task alone."""
SHOWN = 5
"""Labels in the terminal."""


def run(options: dict[str, Any], given: set[str]) -> None:
    """Audit from the values of `caveat audit`'s options, of which `given` are not their defaults."""
    share("--threshold", options["threshold"])
    found = prepared(
        options, given, task="multilabel", unused={"outputs", "levels"}, labelled=_several, numeric=_numeric
    )
    from caveat.audits import cache
    from caveat.audits.multilabel import audit_multilabel
    from caveat.cli.progress import steps
    from caveat.files import alone

    output: Path = options["output"]
    with alone(output), steps() as say, cache.undone_if_refused(output):
        record = audit_multilabel(
            found.network, found.test, train=found.train, ood=found.ood, error=options["error"],
            calibration_share=found.share, seed=options["seed"], threshold=options["threshold"],
            device=options["device"], dtype=options["dtype"], folder=output, made_by=options["model"], say=say,
        )  # fmt: skip
        record = record.model_copy(update={"name": options["name"], "notes": [*found.told, *record.notes]})
        record.save(output / "record.json")
        record.report(output / "report.html")
    show(record, output)


def _several(found: "Set", option: str) -> "Source | Numbers":
    """Refuse a set that does not have several labels for each sample."""
    found = _numeric(found, option)
    if found.labels.ndim == 1:
        raise DataError(
            f"{option}: {found.name} has one label for each sample, or none; name the columns of labels with "
            "+label=A,B,C, or give npz with an array labels (n, c) of 0 and 1"
        )
    return found


def _numeric(found: "Set", option: str) -> "Source | Numbers":
    """Refuse a set of texts."""
    from caveat.data import Texts

    if isinstance(found, Texts):
        raise DataError(f"{option}: {found.name} holds texts; --task multilabel takes tables of numbers and pictures")
    return found


def show(record: "MultilabelRecord", folder: Path) -> None:
    """Print what matters most."""
    from caveat.report.multilabel import bottom_line, worst_first
    from caveat.report.shown import plain_text

    echo()
    echo(plain_text(bottom_line(record)))
    for warning in record.warnings:
        echo(f"Warning: {warning}")
    known = [(row, row.average_precision) for row in worst_first(record)]
    for row, precision in known[:SHOWN]:
        ranked = "not to be ranked" if precision is None else f"average precision {precision.value:.1%}"
        echo(f"  {row.name}: {ranked}, prevalence {row.prevalence.value:.1%}, F1 {row.f1:.1%}, ECE {row.ece.value:.1%}")
    if len(known) > SHOWN:
        echo(f"  ... and {len(known) - SHOWN} labels that are found better; all are in the report")
    for item in record.detections:
        echo(f"  {item.score} against {item.ood}: AUROC {item.auroc.value:.1%}")
    for note in record.notes:
        echo(f"Note: {note}")
    echo(f"Open {folder / 'report.html'} in a browser; all numbers are in {folder / 'record.json'}.")
    if record.operating:
        words = ["caveat", "guard", "fit", str(folder), "-o", str(folder / "guard")]
        echo(f"Next: a guard that answers with labels or abstains:  {join(words)}")
