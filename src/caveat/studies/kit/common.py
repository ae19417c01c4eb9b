"""What the studies share: figures as the papers take them, findings with their date."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from caveat import __version__
from caveat.metrics import calibration, ranking
from caveat.metrics.tally import mirror, tally_sets
from caveat.records.findings import Cell, Claim, Figure, Findings, Row, Scale, Shot, Table, cell

__all__ = ["detection", "findings", "pictures", "rows", "together"]


def detection(known: Tensor, ood: Tensor) -> dict[str, float]:
    """Figures of merit in % of scores (higher = less trustworthy): AUROC, AUPR-Out, and both FPR at 95 %.

    `fpr_in`: OOD inputs that pass when 95 % of the known are kept. `fpr_out`: known that are rejected when 95 % of the
    OOD inputs are found.
    """
    counted = tally_sets(known.double(), ood.double())
    return {
        "auroc": 100 * float(ranking.auroc(counted)),
        "aupr_out": 100 * float(ranking.aupr_out(counted)),
        "aupr_in": 100 * float(ranking.aupr_in(counted)),
        "fpr_in": 100 * float(ranking.fpr_at_tpr(counted)),
        "fpr_out": 100 * float(ranking.fpr_at_tpr(mirror(counted))),
    }


def together(known: Tensor, labels: Tensor, ood: Tensor) -> float:
    """Calibration error (15 bins) over in-distribution and OOD inputs, every answer on an OOD counted as wrong."""
    logits = torch.cat([known, ood]).double()
    confidence = logits.softmax(dim=1)
    predicted = confidence.argmax(dim=1)
    wrong = (predicted[len(known) :] + 1) % confidence.shape[1]
    return float(calibration.ece(calibration.confidence_bins(confidence, torch.cat([labels, wrong]))))


def pictures(batches: Any) -> tuple[Tensor, Tensor]:
    """All inputs and labels of a set in memory."""
    parts = list(batches)
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])


def rows(
    found: Sequence[Mapping[str, Mapping[str, float]]],
    columns: Sequence[str],
    published: Mapping[str, Sequence[str]] | None = None,
) -> list[Row]:
    """One row a method, from `found[seed][method][column]`: mean and spread over seeds, the published figure below."""
    made: list[Row] = []
    for method in found[0]:
        printed = (published or {}).get(method, [""] * len(columns))
        cells: list[Cell] = []
        for column, text in zip(columns, printed, strict=True):
            values = [one[method][column] for one in found if column in one[method]]
            cells.append(cell(values, text) if values else Cell(published=text))
        made.append(Row(label=method, cells=cells))
    return made


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
        caveat_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
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
