"""A record as rows, as text and as a small table: what a notebook or a terminal shows of it; no torch."""

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caveat.records.record import Record

__all__ = ["html", "rows", "text"]

Row = dict[str, str | float | None]


def rows(record: "Record") -> list[Row]:
    """One row per score and OOD set, then one per score for misclassification; what does not apply is None."""
    generated = {item.name: item.generated for item in record.sets}
    accepted = {item.score: item.accepted for item in record.operating}
    test = next((item.name for item in record.sets if item.role == "test"), "test")
    found: list[Row] = [
        {
            "task": "ood", "score": d.score, "set": d.ood, "generated": generated.get(d.ood, False),
            "auroc": d.auroc.value, "auroc_low": d.auroc.low, "auroc_high": d.auroc.high,
            "aupr_in": d.aupr_in.value, "aupr_out": d.aupr_out.value, "fpr_at_95_tpr": d.fpr_at_95_tpr.value,
            "accepted": accepted.get(d.score, {}).get(d.ood), "aurc": None, "e_aurc": None,
        }
        for d in record.detections
    ]  # fmt: skip
    found += [
        {
            "task": "misclassification", "score": s.score, "set": test, "generated": False,
            "auroc": s.auroc.value, "auroc_low": s.auroc.low, "auroc_high": s.auroc.high,
            "aupr_in": None, "aupr_out": None, "fpr_at_95_tpr": None,
            "accepted": accepted.get(s.score, {}).get(test), "aurc": s.aurc.value, "e_aurc": s.e_aurc,
        }
        for s in record.selective
    ]  # fmt: skip
    return found


def text(record: "Record") -> str:
    """Three lines: what was audited, the figures of the model as it is, what else is there."""
    plain = next((item.summary for item in record.calibrations if item.name == "none"), None)
    figures = "no figures for in-distribution data"
    if plain is not None:
        figures = f"accuracy {plain.accuracy.value:.1%}, ECE {plain.ece.value:.1%}, NLL {plain.nll.value:.4f}"
    ood = [item.name for item in record.sets if item.role == "ood"]
    chosen = f" (chosen: {record.choice.score})" if record.choice else ""
    return (
        f"Record of {record.name or record.model}, {record.created[:10]}, Caveat {record.caveat_version}\n"
        f"  {figures}\n"
        f"  {len(record.scores)} scores{chosen}, OOD sets: {', '.join(ood) or 'none'}; see summary() and report(path)"
    )


def html(record: "Record") -> str:
    """The AUROC of every score, as an HTML table below the three lines of `text`; every text is escaped."""
    ood = [item.name for item in record.sets if item.role == "ood"]
    found = {(d.score, d.ood): d.auroc.value for d in record.detections}
    own = {s.score: s.auroc.value for s in record.selective}

    def cells(values: list[float | None]) -> str:
        return "".join("<td></td>" if value is None else f"<td>{100 * value:.1f}</td>" for value in values)

    head = "".join(f"<th>{escape(name)}</th>" for name in ["score", "misclassification", *ood])
    body = "".join(
        f"<tr><th>{escape(s.name)}</th>{cells([own.get(s.name), *(found.get((s.name, name)) for name in ood)])}</tr>"
        for s in record.scores
    )
    title = "<br>".join(escape(line.strip()) for line in text(record).splitlines())
    return (
        f"<p>{title}</p><table><caption>AUROC in %</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
