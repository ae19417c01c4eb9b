"""What the studies share: metrics as the papers take them, rows of tables, findings with their date."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from caveat.metrics import calibration, ranking
from caveat.metrics.tally import mirror, tally_sets
from caveat.records.base import stamp
from caveat.records.findings import Cell, Claim, Figure, Findings, Row, Scale, Shot, Table, cell
from caveat.studies.kit.published import Printed

__all__ = ["detection", "ece_with_ood", "findings", "mean", "pictures", "rows", "verdict"]


def detection(inside: Tensor, ood: Tensor) -> dict[str, float]:
    """Metrics in % of scores (higher = less trustworthy): AUROC, AUPR-Out, AUPR-In, and both FPR at 95 %.

    `fpr_in`: OOD inputs that are accepted where 95 % of the in-distribution ones are. `fpr_out`: in-distribution inputs
    that are rejected where 95 % of the OOD inputs are.
    """
    counted = tally_sets(inside.double(), ood.double())
    return {
        "auroc": 100 * float(ranking.auroc(counted)),
        "aupr_out": 100 * float(ranking.aupr_out(counted)),
        "aupr_in": 100 * float(ranking.aupr_in(counted)),
        "fpr_in": 100 * float(ranking.fpr_at_tpr(counted)),
        "fpr_out": 100 * float(ranking.fpr_at_tpr(mirror(counted))),
    }


def ece_with_ood(inside: Tensor, labels: Tensor, ood: Tensor) -> float:
    """Calibration error (15 bins) over in-distribution and OOD logits; every prediction on an OOD input is wrong."""
    logits = torch.cat([inside, ood]).double()
    confidence = logits.softmax(dim=1)
    predicted = confidence.argmax(dim=1)
    wrong = (predicted[len(inside) :] + 1) % confidence.shape[1]
    return float(calibration.ece(calibration.confidence_bins(confidence, torch.cat([labels, wrong]))))


def pictures(batches: Any) -> tuple[Tensor, Tensor]:
    """All inputs and labels of a set in memory."""
    parts = list(batches)
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])


def rows(
    found: Sequence[Mapping[str, Mapping[str, float]]],
    columns: Sequence[str],
    printed: Printed | None = None,
) -> list[Row]:
    """One row a method, from `found[seed][method][column]`: mean and spread over seeds, the published figure below."""

    def shown(method: str, column: str) -> Cell:
        text = printed.at(method, column) if printed else ""
        values = [one[method][column] for one in found if column in one[method]]
        return cell(values, text) if values else Cell(published=text)

    return [Row(label=method, cells=[shown(method, column) for column in columns]) for method in found[0]]


def mean(found: Sequence[Mapping[str, Mapping[str, float]]], method: str, column: str) -> float:
    """Of one figure over the seeds."""
    return sum(one[method][column] for one in found) / len(found)


def findings(  # noqa: PLR0913  # what a study found has so many parts
    *,
    study: str,
    title: str,
    source: str,
    scale: Scale,
    seeds: Sequence[int],
    settings: Mapping[str, str | int | float | bool | None],
    reduced: Sequence[str] = (),
    claims: Sequence[Claim] = (),
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
    shots: Sequence[Shot] = (),
    notes: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
) -> Findings:
    """Findings of today, by this version."""
    return Findings(
        **stamp(),
        study=study,
        title=title,
        source=source,
        scale=scale,
        seeds=list(seeds),
        settings=dict(settings),
        reduced=list(reduced),
        claims=list(claims),
        tables=list(tables),
        figures=list(figures),
        shots=list(shots),
        notes=list(notes),
        seconds=dict(seconds or {}),
    )


def verdict(holds: Iterable[bool]) -> Literal["confirmed", "partly", "refuted"]:
    """Of a claim with several parts: whether all of them hold, some, or none."""
    seen = list(holds)
    return "confirmed" if all(seen) else "partly" if any(seen) else "refuted"
